"""Invoice lines: how a closed period and late usage become what is charged."""

import enum
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

from services.billing.domain.period import Period
from services.billing.domain.plan import Component, FlatFee, Graduated, Plan
from services.billing.domain.pricing import Price, TierAmount, less, price
from services.billing.domain.seal import MeterTotal, Seal
from services.kit.money import exponent


class LineKind(enum.StrEnum):
    """What a line charges for."""

    SUBSCRIPTION = "SUBSCRIPTION"
    USAGE = "USAGE"
    ADJUSTMENT = "ADJUSTMENT"


@dataclass(frozen=True)
class InvoiceLine:
    """One line.

    Attributes:
        id: its number within the invoice, from `1`.
        component_id: the component of the plan that prices it.
        meter: empty on a fixed fee.
        quantity: what the line adds to the period's quantity: all of it on a first line, the late units on an
            adjustment.
        unit_price: of `per` units; None where tiers have a price each.
        precise_amount: before rounding.
        amount: rounded once, half away from zero.
        period: the period whose usage it charges, an earlier one than the invoice's on an adjustment.
        priced_quantity: the period's total that was priced.
        billed_before: what earlier lines charged for the same component and period.
    """

    id: str
    component_id: str
    description: str
    kind: LineKind
    meter: str
    quantity: Decimal
    unit: str
    unit_price: Decimal | None
    per: Decimal | None
    included: Decimal | None
    precise_amount: Decimal
    amount: Decimal
    tax_amount: Decimal
    tiers: tuple[TierAmount, ...]
    event_count: int
    sample_trace_ids: tuple[str, ...]
    period: Period
    priced_quantity: Decimal
    billed_before: Decimal


@dataclass(frozen=True)
class Charged:
    """What earlier invoices charged for one component in one period."""

    period: Period
    component: Component
    quantity: Decimal
    amount: Decimal
    event_count: int


def lines_of_period(plan: Plan, period: Period, seal: Seal) -> list[InvoiceLine]:
    """Return one line per component, in the plan's order."""
    digits = exponent(plan.terms.currency)
    lines = []
    for number, component in enumerate(plan.terms.components, start=1):
        usage = None if isinstance(component.charge, FlatFee) else seal.total(component.charge.meter)
        lines.append(_line(str(number), component, period, usage, digits))
    return lines


def adjustment_lines(charged: Sequence[Charged], seal: Seal, currency: str, first: int) -> list[InvoiceLine]:
    """Return a line per component and earlier period whose total has changed since it was charged.

    The amount is the price of sealed and late usage together less what is charged already, so that late usage costs
    what it would have cost in time. Late usage that stays within the included units makes a line of zero: it is
    billed, and shown to be.

    Args:
        charged: what earlier invoices charged.
        seal: its `late_usage` has the new totals.
        currency: ISO 4217 code.
        first: the number of the first line.
    """
    late = {usage.period_end: usage.totals for usage in seal.late_usage}
    digits = exponent(currency)
    lines: list[InvoiceLine] = []
    for item in charged:
        if isinstance(item.component.charge, FlatFee):
            continue
        usage = late.get(item.period.end, {}).get(item.component.charge.meter)
        if usage is not None and usage.value != item.quantity:
            lines.append(_adjustment(str(first + len(lines)), item, usage, digits))
    return lines


def _line(number: str, component: Component, period: Period, usage: MeterTotal | None, digits: int) -> InvoiceLine:
    charge = component.charge
    priced = price(charge, usage.value if usage else Decimal(1))
    metered = None if isinstance(charge, FlatFee) else charge
    return InvoiceLine(
        id=number,
        component_id=component.id,
        description=component.display_name,
        kind=LineKind.USAGE if metered else LineKind.SUBSCRIPTION,
        meter=metered.meter if metered else "",
        quantity=usage.value if usage else Decimal(1),
        unit=usage.unit if usage else "",
        unit_price=_unit_price(component),
        per=metered.per if metered else None,
        included=metered.included if metered else None,
        precise_amount=priced.precise_amount,
        amount=priced.rounded(digits),
        tax_amount=Decimal(0),
        tiers=priced.tiers,
        event_count=usage.event_count if usage else 0,
        sample_trace_ids=usage.sample_trace_ids if usage else (),
        period=period,
        priced_quantity=usage.value if usage else Decimal(1),
        billed_before=Decimal(0),
    )


def _adjustment(number: str, charged: Charged, usage: MeterTotal, digits: int) -> InvoiceLine:
    line = _line(number, charged.component, charged.period, usage, digits)
    owed = Price(less(price(charged.component.charge, usage.value).precise_amount, charged.amount))
    return replace(
        line,
        kind=LineKind.ADJUSTMENT,
        quantity=less(usage.value, charged.quantity),
        precise_amount=owed.precise_amount,
        amount=owed.rounded(digits),
        tiers=(),
        event_count=max(0, usage.event_count - charged.event_count),
        billed_before=charged.amount,
    )


def _unit_price(component: Component) -> Decimal | None:
    match component.charge:
        case FlatFee(amount):
            return amount
        case Graduated():
            return None
        case charge:
            return charge.unit_price
