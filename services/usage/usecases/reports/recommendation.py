"""Which plan fits the usage that a report looks at."""

from collections.abc import Sequence
from typing import Final

from services.usage.clients import Billing, BillingAway
from services.usage.domain.report import Action, Recommendation, basis, recommend
from services.usage.store.history import History
from services.usage.usecases.reports.scope import Scope

_ADDING: Final = ("COUNT", "SUM")


def recommendation(billing: Billing, scope: Scope, found: Sequence[History]) -> Recommendation:
    """Compare the plans by the periods that say enough; without billing, say that nothing can be said."""
    adding = [each.meter.meter.id for each in found if each.meter.meter.aggregation.value in _ADDING]
    judged = [
        basis(
            period,
            {each.meter.meter.id: each.value(period.start, period.end) for each in found},
            adding,
            scope.now,
        )
        for period in scope.periods
        if period.start < scope.now
    ]
    bases = [each for each in judged if each is not None]
    if not bases:
        reason = "Less than a tenth of the period is over: its pace says nothing yet."
        return Recommendation(Action.NONE, reasons=(reason,))
    try:
        plans = billing.compare(scope.customer.id, [each.quantities for each in bases])
    except BillingAway:
        return Recommendation(Action.NONE, reasons=("Billing, which knows the prices, cannot be reached now.",))
    return recommend(plans, bases)
