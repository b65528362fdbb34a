"""Invoices and their lines."""

from decimal import Decimal

from google.type import money_pb2

from meterscope.billing.v1 import invoice_service_pb2 as pb
from services.billing.convert.plan import optional
from services.billing.convert.times import interval, timestamp
from services.billing.domain.invoice import Invoice, InvoiceState
from services.billing.domain.line import InvoiceLine
from services.billing.domain.pricing import TierAmount
from services.kit.errors import InvalidArgument
from services.kit.money import Money, decimal_to_proto, money_to_proto


def invoice(value: Invoice) -> pb.Invoice:
    """Encode an invoice."""
    currency = value.currency
    return pb.Invoice(
        id=value.id,
        number=value.number,
        customer_id=value.customer_id,
        state=pb.InvoiceState.Value(f"INVOICE_STATE_{value.state}"),
        currency=currency,
        period=interval(value.period),
        lines=[line(part, currency) for part in value.lines],
        subtotal=_money(value.subtotal, currency),
        tax=_money(value.tax, currency),
        total=_money(value.total, currency),
        amount_due=_money(value.amount_due, currency),
        subscription_id=value.subscription_id,
        bill_run_id=value.bill_run_id,
        finalize_time=timestamp(value.finalize_time),
        paid_time=timestamp(value.paid_time),
        payment_id=value.payment_id,
        trace_id=value.trace_id,
        customer_display_name=value.customer_display_name,
    )


def line(value: InvoiceLine, currency: str) -> pb.InvoiceLine:
    """Encode a line."""
    return pb.InvoiceLine(
        id=value.id,
        description=value.description,
        kind=pb.InvoiceLineKind.Value(f"INVOICE_LINE_KIND_{value.kind}"),
        meter=value.meter,
        quantity=decimal_to_proto(value.quantity),
        unit_price=optional(value.unit_price),
        precise_amount=decimal_to_proto(value.precise_amount),
        amount=_money(value.amount, currency),
        tax_amount=_money(value.tax_amount, currency),
        sample_trace_ids=value.sample_trace_ids,
        per=optional(value.per),
        included=optional(value.included),
        tiers=[_tier(tier) for tier in value.tiers],
        event_count=value.event_count,
        unit=value.unit,
    )


def state(message: pb.InvoiceState.ValueType) -> InvoiceState | None:
    """Decode a filter's state; None for any.

    Raises:
        InvalidArgument: not a state of this version.
    """
    if message == pb.INVOICE_STATE_UNSPECIFIED:
        return None
    try:
        return InvoiceState(pb.InvoiceState.Name(message).removeprefix("INVOICE_STATE_"))
    except ValueError:
        raise InvalidArgument.at("state", f"{message} is no state of an invoice") from None


def _tier(tier: TierAmount) -> pb.TierAmount:
    message = pb.TierAmount(
        up_to=optional(tier.up_to),
        quantity=decimal_to_proto(tier.quantity),
        unit_price=decimal_to_proto(tier.unit_price),
        precise_amount=decimal_to_proto(tier.precise_amount),
    )
    # `from` is a word of Python.
    getattr(message, "from").CopyFrom(decimal_to_proto(tier.start))
    return message


def _money(amount: Decimal, currency: str) -> money_pb2.Money:
    return money_to_proto(Money(amount, currency))
