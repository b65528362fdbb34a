"""What usage costs, without an invoice: a period's quantities, running totals, and one usage on many plans."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from services.billing.domain.plan import Component, FlatFee, Plan
from services.billing.domain.pricing import Price, price, total
from services.kit.money import exponent

_NOTHING = Decimal(0)


@dataclass(frozen=True)
class ComponentPrice:
    """What a component costs. `meter` is empty and `quantity` 1 on a flat fee; `amount` is rounded once."""

    component: Component
    meter: str
    quantity: Decimal
    price: Price
    amount: Decimal


@dataclass(frozen=True)
class Preview:
    """What a period's quantities cost. `total` adds the rounded amounts up, as an invoice does."""

    plan: Plan
    components: tuple[ComponentPrice, ...]
    precise_total: Decimal
    total: Decimal
    unpriced_meters: tuple[str, ...]


@dataclass(frozen=True)
class ComponentCost:
    """What a component costs up to each of some moments; a flat fee has one amount, for the period."""

    component: Component
    meter: str
    precise_amounts: tuple[Decimal, ...]


@dataclass(frozen=True)
class PlanCost:
    """What usage costs on a plan over some periods."""

    plan: Plan
    is_current: bool
    precise_total: Decimal
    total: Decimal
    flat_fees: Decimal


def preview(plan: Plan, quantities: Mapping[str, Decimal]) -> Preview:
    """Price a period's quantities by meter; a meter that is left out has none."""
    digits = exponent(plan.terms.currency)
    components = []
    for component in plan.terms.components:
        meter = _meter(component)
        quantity = quantities.get(meter, _NOTHING) if meter else Decimal(1)
        priced = price(component.charge, quantity)
        components.append(ComponentPrice(component, meter, quantity, priced, priced.rounded(digits)))
    return Preview(
        plan=plan,
        components=tuple(components),
        precise_total=total([each.price.precise_amount for each in components]),
        total=total([each.amount for each in components]),
        unpriced_meters=tuple(sorted(quantities.keys() - {each.meter for each in components})),
    )


def running(plan: Plan, totals: Mapping[str, Sequence[Decimal]]) -> list[ComponentCost]:
    """Price running totals by meter. Components whose meter is not among them are left out, for they cost nothing."""
    costs = []
    for component in plan.terms.components:
        meter = _meter(component)
        moments = totals.get(meter, ()) if meter else (Decimal(1),)
        if moments:
            amounts = tuple(price(component.charge, quantity).precise_amount for quantity in moments)
            costs.append(ComponentCost(component, meter, amounts))
    return costs


def compare(plans: Iterable[Plan], current: Plan | None, periods: Sequence[Mapping[str, Decimal]]) -> list[PlanCost]:
    """Price the same periods on each plan, the cheapest first."""
    costs = []
    for plan in plans:
        previews = [preview(plan, quantities) for quantities in periods]
        fees = [part.charge.amount for part in plan.terms.components if isinstance(part.charge, FlatFee)]
        is_current = current is not None and (plan.terms.id, plan.version) == (current.terms.id, current.version)
        costs.append(
            PlanCost(
                plan=plan,
                is_current=is_current,
                precise_total=total([each.precise_total for each in previews]),
                total=total([each.total for each in previews]),
                flat_fees=total(fees),
            )
        )
    return sorted(costs, key=lambda cost: (cost.total, cost.plan.terms.id, cost.plan.version))


def _meter(component: Component) -> str:
    return "" if isinstance(component.charge, FlatFee) else component.charge.meter
