"""What a report's range cost."""

import logging
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Final

from services.kit.money import Money, exponent, quantize
from services.usage.clients import BillingAway
from services.usage.domain.cost import DayCost
from services.usage.domain.report import EXACT
from services.usage.store.costs import CustomerPeriod, Header
from services.usage.usecases.costs import Costs
from services.usage.usecases.reports.report import ComponentCost, Cost
from services.usage.usecases.reports.scope import Scope

_NOTHING: Final = Decimal(0)

_log = logging.getLogger(__name__)


def brought_up(costs: Costs, scope: Scope) -> str:
    """Bring the prices of the periods up to their usage; return PRICED, or STALE where billing is away."""
    customer = scope.customer
    wanted = [
        CustomerPeriod(customer.number, customer.id, customer.time_zone, customer.revision, period)
        for period in scope.periods
    ]
    try:
        costs.refresh(wanted)
    except BillingAway:
        _log.warning("a report shows the cost as it was last priced", exc_info=True)
        return "STALE"
    return "PRICED"


def cost(state: str, headers: Mapping[datetime, Header], costs: Sequence[DayCost]) -> Cost:
    """Add up what the range's days cost.

    Args:
        state: see `brought_up`.
        headers: what the periods were priced as, by their start.
        costs: of the days.
    """
    if not headers:
        return Cost("UNKNOWN" if state == "STALE" else "NO_PLAN")
    as_of = min(header.as_of for header in headers.values())
    newest = headers[max(headers)]
    currency = next((header.currency for header in headers.values() if header.currency), "")
    if not currency:
        return Cost("NO_PLAN", as_of=as_of)
    components: dict[str, ComponentCost] = {}
    by_day: dict[date, Decimal] = {}
    for each in costs:
        known = components.get(each.component)
        precise = EXACT.add(known.precise if known else _NOTHING, each.amount)
        components[each.component] = ComponentCost(
            each.component, each.display_name, each.meter, precise, _rounded(precise, currency)
        )
        by_day[each.date] = EXACT.add(by_day.get(each.date, _NOTHING), each.amount)
    total = Money(sum((each.amount.amount for each in components.values()), _NOTHING), currency)
    whole = _NOTHING
    for component in components.values():
        whole = EXACT.add(whole, component.precise)
    return Cost(
        state=state,
        currency=currency,
        plan_id=newest.plan_id,
        components=tuple(components.values()),
        days=tuple((day, amount) for day, amount in sorted(by_day.items()) if amount),
        precise=whole,
        total=total,
        as_of=as_of,
    )


def _rounded(amount: Decimal, currency: str) -> Money:
    return Money(quantize(amount, exponent(currency)), currency)
