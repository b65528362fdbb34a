"""The steps from a sealed total to a line's amount, computed again from the total, the price and the rounding."""

from dataclasses import dataclass
from decimal import Decimal

from services.billing.domain.invoice import Invoice
from services.billing.domain.line import InvoiceLine, LineKind
from services.billing.domain.plan import Component, FlatFee, Graduated, PerUnit
from services.billing.domain.pricing import Price, less, price, total
from services.kit.money import exponent, plain

_TIMES = "\N{MULTIPLICATION SIGN}"


@dataclass(frozen=True)
class Explanation:
    """Sentences, and the amount at which they arrive."""

    steps: tuple[str, ...]
    amount: Decimal


def explain(invoice: Invoice, line: InvoiceLine, component: Component) -> Explanation:
    """Price the line's stored total again by the plan's component and say each step."""
    currency, digits = invoice.currency, exponent(invoice.currency)
    steps = [_origin(invoice, line)]
    priced = price(component.charge, line.priced_quantity)
    steps += _charge(component, line, priced, currency)
    if line.kind is LineKind.ADJUSTMENT:
        priced, whole = Price(less(priced.precise_amount, line.billed_before)), priced
        steps.append(
            f"{plain(whole.precise_amount)} less {currency} {line.billed_before:f} that earlier invoices charged for "
            f"this period leaves {plain(priced.precise_amount)}."
        )
    amount = priced.rounded(digits)
    steps.append(
        f"{plain(priced.precise_amount)} is rounded once, half away from zero, to the {digits} decimals of {currency} "
        f"(ISO 4217): {currency} {amount:f}."
    )
    if amount != line.amount:
        steps.append(f"The invoice says {currency} {line.amount:f}: this line does not agree with its own price.")
    return Explanation(tuple(steps), amount)


def _origin(invoice: Invoice, line: InvoiceLine) -> str:
    start, end = line.period.start.isoformat(), line.period.end.isoformat()
    match line.kind:
        case LineKind.SUBSCRIPTION:
            return (
                f"Plan {invoice.plan_id}, version {invoice.plan_version}, has a fixed fee for each period; this one "
                f"runs from {start} until {end}."
            )
        case LineKind.USAGE:
            return (
                f"Meter {line.meter} was sealed at {plain(line.priced_quantity)}{_unit(line)} by {line.event_count} "
                f"events from {start} until {end} (seal {invoice.seal_id})."
            )
        case LineKind.ADJUSTMENT:
            return (
                f"Meter {line.meter} stands at {plain(line.priced_quantity)}{_unit(line)} for {start} until {end}, "
                f"{plain(line.quantity)} of it arrived after that period was billed (seal {invoice.seal_id})."
            )


def _charge(component: Component, line: InvoiceLine, priced: Price, currency: str) -> list[str]:
    match component.charge:
        case FlatFee(amount):
            return [f"The fee is {currency} {amount:f}."]
        case PerUnit() as charge:
            charged = max(Decimal(0), less(line.priced_quantity, charge.included))
            return [
                _included(charge, charged),
                f"{plain(charged)} {_TIMES} {plain(charge.unit_price)} ÷ {plain(charge.per)} = {plain(priced.precise_amount)}.",
            ]
        case Graduated() as charge:
            charged = total([tier.quantity for tier in priced.tiers])
            return [_included(charge, charged), *_tiers(charge, priced)]


def _included(charge: PerUnit | Graduated, charged: Decimal) -> str:
    if charge.included == 0:
        return f"None are included: all {plain(charged)} are charged."
    return f"The first {plain(charge.included)} are included: {plain(charged)} are charged."


def _tiers(charge: Graduated, priced: Price) -> list[str]:
    steps = []
    for tier in priced.tiers:
        reach = f"above {plain(tier.start)}" + (f" up to {plain(tier.up_to)}" if tier.up_to is not None else "")
        steps.append(
            f"Units {reach}: {plain(tier.quantity)} {_TIMES} {plain(tier.unit_price)} ÷ {plain(charge.per)} "
            f"= {plain(tier.precise_amount)}."
        )
    terms = " + ".join(plain(tier.precise_amount) for tier in priced.tiers)
    return [*steps, f"Together: {terms} = {plain(priced.precise_amount)}."]


def _unit(line: InvoiceLine) -> str:
    return f" {line.unit}" if line.unit else ""
