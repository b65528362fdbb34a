"""Invoices: made of lines, frozen, paid."""

import enum
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Final

from services.billing.domain.customer import Customer
from services.billing.domain.line import InvoiceLine
from services.billing.domain.period import Period
from services.billing.domain.plan import Plan
from services.billing.domain.pricing import total
from services.billing.errors import AmountTooLarge, InvoiceNotPayable
from services.kit.errors import InvalidArgument

MAX_AMOUNT: Final = Decimal(10) ** 15


class InvoiceState(enum.StrEnum):
    """Where an invoice stands."""

    DRAFT = "DRAFT"
    FINALIZED = "FINALIZED"
    PAID = "PAID"
    VOID = "VOID"
    UNCOLLECTIBLE = "UNCOLLECTIBLE"


@dataclass(frozen=True)
class Invoice:
    """A demand for payment, frozen once it is finalized."""

    id: str
    number: str
    customer_id: str
    customer_display_name: str
    subscription_id: str
    plan_id: str
    plan_version: int
    bill_run_id: str
    state: InvoiceState
    currency: str
    period: Period
    lines: tuple[InvoiceLine, ...]
    subtotal: Decimal
    tax: Decimal
    total: Decimal
    amount_due: Decimal
    seal_id: str
    payment_id: str
    trace_id: str
    finalize_time: datetime | None
    paid_time: datetime | None

    def line(self, line_id: str) -> InvoiceLine | None:
        """Return the line, None when there is no such line."""
        return next((line for line in self.lines if line.id == line_id), None)


def assemble(
    lines: Sequence[InvoiceLine],
    *,
    invoice_id: str,
    customer: Customer,
    subscription_id: str,
    plan: Plan,
    bill_run_id: str,
    period: Period,
    seal_id: str,
    trace_id: str,
) -> Invoice:
    """Return the draft of an invoice: the sums of its lines, no number yet.

    A total below zero (adjustments that credit more than the period costs) leaves nothing due; the ledger keeps it as a
    credit of the customer.

    Raises:
        AmountTooLarge: the sum is beyond what providers and the wire carry.
    """
    subtotal = total([line.amount for line in lines])
    tax = total([line.tax_amount for line in lines])
    if max(abs(amount) for amount in [*(line.amount for line in lines), subtotal]) > MAX_AMOUNT:
        raise AmountTooLarge(customer.id, str(MAX_AMOUNT))
    return Invoice(
        id=invoice_id,
        number="",
        customer_id=customer.id,
        customer_display_name=customer.display_name,
        subscription_id=subscription_id,
        plan_id=plan.terms.id,
        plan_version=plan.version,
        bill_run_id=bill_run_id,
        state=InvoiceState.DRAFT,
        currency=plan.terms.currency,
        period=period,
        lines=tuple(lines),
        subtotal=subtotal,
        tax=tax,
        total=subtotal + tax,
        amount_due=max(Decimal(0), subtotal + tax),
        seal_id=seal_id,
        payment_id="",
        trace_id=trace_id,
        finalize_time=None,
        paid_time=None,
    )


def finalized(draft: Invoice, number: str, now: datetime) -> Invoice:
    """Return the invoice, frozen; one with nothing due is paid at once."""
    if draft.amount_due == 0:
        return replace(draft, number=number, state=InvoiceState.PAID, finalize_time=now, paid_time=now)
    return replace(draft, number=number, state=InvoiceState.FINALIZED, finalize_time=now)


def paid(invoice: Invoice, payment_id: str, amount: Decimal, now: datetime) -> Invoice:
    """Return the invoice after a payment of it came in; paid when nothing is due any more.

    Raises:
        InvoiceNotPayable: it does not wait for a payment.
        InvalidArgument: not above zero, or more than is due.
    """
    if invoice.state is not InvoiceState.FINALIZED:
        raise InvoiceNotPayable(invoice.id, invoice.state)
    if amount <= 0:
        raise InvalidArgument.at("amount", f"{amount:f} is not above 0")
    if amount > invoice.amount_due:
        raise InvalidArgument.at("amount", f"{amount:f} is more than the {invoice.amount_due:f} that is due")
    due = invoice.amount_due - amount
    if due:
        return replace(invoice, amount_due=due, payment_id=payment_id)
    return replace(invoice, amount_due=due, payment_id=payment_id, state=InvoiceState.PAID, paid_time=now)
