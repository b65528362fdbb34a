"""Whether limits were kept in a report's periods, and nothing is missing."""

from collections.abc import Sequence
from dataclasses import replace

from services.usage.domain.limit import LimitKind
from services.usage.domain.report import kept
from services.usage.store.history import History
from services.usage.usecases.reports.report import Compliance
from services.usage.usecases.reports.scope import Scope


def compliance(scope: Scope, found: Sequence[History], held: int) -> Compliance:
    """Judge each limit in each period. `held` are the customer's events in quarantine."""
    by_meter = {each.meter.meter.id: each for each in found}
    judged = []
    for period in scope.periods:
        for meter, limit in sorted(scope.customer.limits.items()):
            if limit.kind is LimitKind.HARD and not scope.customer.has_plan:
                limit = replace(limit, kind=LimitKind.DEFAULT)  # noqa: PLW2901 - the same limit, as it is told
            running = list(by_meter[meter].running(period)) if meter in by_meter else []
            judged.append(kept(limit, period, running))
    return Compliance(
        limits=tuple(judged),
        as_of=scope.as_of,
        is_complete=scope.is_complete and not held,
        quarantined=held,
        lag=0.0 if scope.is_complete else max(0.0, (scope.now - scope.as_of).total_seconds()),
    )
