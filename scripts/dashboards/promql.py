"""Queries in the forms that are right for each kind of instrument, so that no dashboard writes them in a wrong one.

Counters are read by `rate` and `increase`; gauges by `max by`, as a gauge that changed hands is for some minutes told by
two processes; quantiles from the sum of the buckets; ratios with both sides summed.
"""

from collections.abc import Sequence
from typing import Final

# What every process says of itself; the dashboards' variable `environment` holds the choice.
ENVIRONMENT: Final = 'deployment_environment_name=~"$environment"'
# Four times as long as the way between two exports, or a step of the graph, whichever is longer.
RATE: Final = "$__rate_interval"
WHOLE_RANGE: Final = "$__range"


def series(metric: str, *matchers: str) -> str:
    """Return a selector of the chosen environments' series; `matchers` are written as in PromQL."""
    return f"{metric}{{{', '.join((ENVIRONMENT, *matchers))}}}"


def per_second(counter: str, *matchers: str, by: Sequence[str] = ()) -> str:
    """Return how fast a counter grows."""
    return summed(f"rate({series(counter, *matchers)}[{RATE}])", by=by)


def grown(counter: str, *matchers: str, by: Sequence[str] = (), over: str = WHOLE_RANGE) -> str:
    """Return by how much a counter has grown."""
    return summed(f"increase({series(counter, *matchers)}[{over}])", by=by)


def latest(gauge: str, *matchers: str, by: Sequence[str] = ()) -> str:
    """Return a gauge's value."""
    return f"max{_by(by)}({series(gauge, *matchers)})"


def lowest(gauge: str, *matchers: str, by: Sequence[str] = ()) -> str:
    """Return the lowest value that a process tells of: of what all of them must be able to say."""
    return f"min{_by(by)}({series(gauge, *matchers)})"


def quantile(share: float, histogram: str, *matchers: str, by: Sequence[str] = ()) -> str:
    """Return what so great a share of what a histogram counted is below. `histogram` is its name without `_bucket`."""
    return f"histogram_quantile({share}, {per_second(f'{histogram}_bucket', *matchers, by=('le', *by))})"


def foreign_latest(gauge: str, *, by: Sequence[str] = ()) -> str:
    """Return a gauge's value that is not our processes' own, of all environments: the collector's."""
    return f"max{_by(by)}({gauge})"


def foreign_per_second(counter: str, *matchers: str, by: Sequence[str] = ()) -> str:
    """Return how fast such a counter grows."""
    chosen = f"{counter}{{{', '.join(matchers)}}}" if matchers else counter
    return summed(f"rate({chosen}[{RATE}])", by=by)


def foreign_quantile(share: float, histogram: str, *, by: Sequence[str] = ()) -> str:
    """Return a quantile of such a histogram."""
    return f"histogram_quantile({share}, {foreign_per_second(f'{histogram}_bucket', by=('le', *by))})"


def ratio(part: str, whole: str) -> str:
    """Return a part of a whole, 0 to 1; nothing where there is no whole. Both are sums without labels.

    The part may have no series yet: a counter with an open set of labels begins with the first that it counts.
    """
    return f"({part} or vector(0)) / ({whole} > 0)"


def summed(expression: str, *, by: Sequence[str] = ()) -> str:
    """Return a sum."""
    return f"sum{_by(by)}({expression})"


def highest(count: int, expression: str) -> str:
    """Return the series that are highest now."""
    return f"topk({count}, {expression})"


def _by(labels: Sequence[str]) -> str:
    return f" by ({', '.join(labels)}) " if labels else ""
