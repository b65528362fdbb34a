"""What is promised, how fast the error budgets burn, and what is left of them. The promises: prometheus/rules/slo.yml."""

from typing import Final

from grafana_foundation_sdk.models.dashboard import Dashboard

from scripts.dashboards.board import Row, board
from scripts.dashboards.panel import (
    COUNT,
    REQUESTS_PER_SECOND,
    SECONDS,
    SHARE,
    Bound,
    Panel,
    Query,
    fail_at,
    good_from,
    lines,
    number,
)
from scripts.dashboards.promql import latest, quantile

_WINDOWS: Final = ("5m", "30m", "1h", "2h", "6h", "1d", "3d")
_PROMISES: Final = {
    "ingest-durability": "99.9 % of the calls that bring usage are acknowledged, or refused for a reason of the caller's.",
    "gateway-availability": "99.9 % of the REST requests are not answered with 5xx.",
    "gateway-latency": "99 % of the REST requests are answered within 0.5 s, uploads of files apart.",
}
# A ratio of what is of the same environment.
_OF: Final = ("slo", "deployment_environment_name")
_LEGEND: Final = "{{slo}} {{deployment_environment_name}}"
_BOUNDS: Final = (Bound(1, "yellow"), Bound(6, "orange"), Bound(14.4, "red"))
_ALERTS: Final = ("BillingErrorBudgetBurnFast", "BillingErrorBudgetBurnSlow")


def slo() -> Dashboard:
    """Return the dashboard."""
    return board(
        "meterscope-slo",
        "SLOs",
        "What is promised over 30 days, how fast the error budgets burn, and what is left of them; of the worst of the chosen environments.",
        [_budgets(), _burns(), _requests(), _latency()],
        since="now-24h",
    )


def _budgets() -> Row:
    return Row(
        "Error budgets",
        [
            [
                number(
                    "Left of 30 days' budget",
                    Query(f"1 - {latest('meterscope:slo_burn:rate30d', by=('slo',))}", "{{slo}}"),
                    unit=SHARE,
                    shows="How much of the errors that 30 days may bring is left. Below 0 the promise is broken. Worked out every "
                    "five minutes; empty where there were no requests.",
                    normal="above 25 %; what is left may be spent on changes.",
                    bounds=good_from(0.0001, 0.25),
                    worst="red",
                    alerts=_ALERTS,
                ),
                number(
                    "Burns now, over an hour",
                    Query(latest("meterscope:slo_burn:rate1h", by=("slo",)), "{{slo}}"),
                    unit=COUNT,
                    shows="How many times faster than it may each budget burnt in the last hour: 1 uses it up in exactly 30 days.",
                    normal="below 1.",
                    bounds=_BOUNDS,
                    alerts=_ALERTS,
                ),
            ]
        ],
    )


def _burns() -> Row:
    return Row("Burn rates", [[_burn(name, promise) for name, promise in _PROMISES.items()]])


def _burn(name: str, promise: str) -> Panel:
    windows = (Query(latest(f"meterscope:slo_burn:rate{window}", f'slo="{name}"'), window) for window in _WINDOWS)
    return lines(
        f"{name}",
        *windows,
        unit=COUNT,
        shows=f"Promised: {promise} Drawn: how many times faster than it may the budget burns, over windows of 5 minutes to 3 days.",
        normal="below 1. An alert is raised when a long and a short window are both above 14.4 (1 h, 5 min), 6 (6 h, 30 min), "
        "3 (1 d, 2 h) or 1 (3 d, 6 h).",
        bounds=_BOUNDS,
        alerts=_ALERTS,
    )


def _requests() -> Row:
    failures = latest("meterscope:slo_failures:rate5m", by=_OF)
    requests = latest("meterscope:slo_requests:rate5m", by=_OF)
    return Row(
        "Requests",
        [
            [
                lines(
                    "Kept promises",
                    Query(f"1 - {failures} / ({requests} > 0)", _LEGEND),
                    unit=SHARE,
                    shows="Share of the requests of 5 minutes that were answered as promised.",
                    normal="100 %.",
                    bounds=good_from(0.99, 0.999),
                    worst="red",
                ),
                lines(
                    "Requests",
                    Query(requests, _LEGEND),
                    unit=REQUESTS_PER_SECOND,
                    shows="Requests each second that the promises are about.",
                    normal="follows the day of your customers.",
                ),
                lines(
                    "Broken promises",
                    Query(failures, _LEGEND),
                    unit=REQUESTS_PER_SECOND,
                    shows="Requests each second that were not answered as promised.",
                    normal="0.",
                    bounds=fail_at(1),
                ),
            ]
        ],
    )


def _latency() -> Row:
    rest = ('route=~"/v1/.*"', 'route!~".*:import"')
    return Row(
        "Latency",
        [
            [
                lines(
                    "REST without uploads",
                    *(
                        Query(quantile(share, "billing_http_request_duration_seconds", *rest), f"p{share * 100:.0f}")
                        for share in (0.5, 0.95, 0.99)
                    ),
                    unit=SECONDS,
                    shows="How long the requests take that the promise gateway-latency is about.",
                    normal="p99 below 0.5 s.",
                    bounds=fail_at(0.5),
                    exemplars=True,
                ),
                lines(
                    "Events until acknowledged",
                    *(
                        Query(quantile(share, "billing_event_ingestion_duration_seconds"), f"p{share * 100:.0f}")
                        for share in (0.5, 0.95, 0.99)
                    ),
                    unit=SECONDS,
                    shows="How long it takes until a batch of events is stored and acknowledged.",
                    normal="p95 below 0.1 s.",
                    bounds=fail_at(1),
                    exemplars=True,
                ),
            ]
        ],
    )
