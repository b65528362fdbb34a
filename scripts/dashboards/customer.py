"""One customer: used shares, history, refusals, log lines."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from scripts.dashboards.board import Row, board, choice
from scripts.dashboards.panel import (
    COUNT,
    PER_SECOND,
    PERCENT,
    Query,
    dial,
    lines,
    log_lines,
    number,
    warn_and_fail_at,
    warn_at,
)
from scripts.dashboards.promql import ENVIRONMENT, grown, latest, per_second

_WHO = 'customer_id="$customer_id"'
_USAGE = "billing_usage_increment_total"
_REFUSED = "billing_limit_exceeded_total"


def customer() -> Dashboard:
    """Return the dashboard."""
    return board(
        "meterscope-usage-customer",
        "Usage per customer",
        "One customer's usage against its limits. Invoices are made from the totals in PostgreSQL, never from these graphs.",
        [_now(), _history(), _events()],
        variables=[choice("customer_id", "Customer", "billing_usage_percentage", "customer_id", several=False)],
        since="now-24h",
    )


def _now() -> Row:
    return Row(
        "Now",
        [
            [
                dial(
                    "Used share of limits",
                    Query(latest("billing_usage_percentage", _WHO, by=("limit_type",)), "{{limit_type}}"),
                    unit=PERCENT,
                    shows="How much of each limit is used in the current period.",
                    normal="below 80 %: alerts are raised at 80 and 95 %.",
                    bounds=warn_and_fail_at(80, 95),
                    most=120,
                    alerts=("BillingUsageNearLimit", "BillingUsageNearLimitCritical"),
                ),
                number(
                    "Used in this range",
                    Query(grown(_USAGE, _WHO, by=("metric_type",)), "{{metric_type}}"),
                    unit=COUNT,
                    shows="What came into the totals in the dashboard's range, by meter, in the meter's own unit.",
                    normal="what the customer is used to.",
                ),
                number(
                    "Refused in this range",
                    Query(f"{grown(_REFUSED, _WHO)} or vector(0)", "refused"),
                    unit=COUNT,
                    shows="Limit checks and reservations that were refused.",
                    normal="0, but where a limit is meant to refuse.",
                    bounds=warn_at(1),
                    alerts=("BillingLimitExceededFrequent",),
                ),
                number(
                    "On the default limits",
                    Query(latest("billing_tenant_using_defaults", _WHO), "defaults"),
                    unit=COUNT,
                    shows="1 when the customer has no plan, so that the default limits hold; 0 when it has one.",
                    normal="0.",
                    bounds=warn_at(1),
                    alerts=("BillingTenantWithoutPlan",),
                ),
            ]
        ],
    )


def _history() -> Row:
    return Row(
        "History",
        [
            [
                lines(
                    "Usage of the last 30 days, by day",
                    Query(grown(_USAGE, _WHO, by=("metric_type",), over="1d"), "{{metric_type}}"),
                    unit=COUNT,
                    shows="What came into the totals each day, by meter, whatever range the dashboard shows.",
                    normal="the customer's own week.",
                    days=30,
                ),
                lines(
                    "Used share of limits",
                    Query(latest("billing_usage_percentage", _WHO, by=("limit_type",)), "{{limit_type}}"),
                    unit=PERCENT,
                    shows="How much of each limit is used; it falls to 0 when a period begins.",
                    normal="reaches at most 80 % at the period's end.",
                    bounds=warn_and_fail_at(80, 95),
                ),
            ],
            [
                lines(
                    "Storage",
                    Query(
                        latest("billing_usage_percentage", _WHO, 'limit_type=~"storage.*"', by=("limit_type",)),
                        "{{limit_type}}",
                    ),
                    unit=PERCENT,
                    shows="How much of the limits of meters whose names begin with `storage` is used.",
                    normal="grows slowly.",
                    bounds=warn_and_fail_at(80, 95),
                ),
                lines(
                    "Usage by meter",
                    Query(per_second(_USAGE, _WHO, by=("metric_type",)), "{{metric_type}}"),
                    unit=PER_SECOND,
                    shows="How much comes into the totals each second, in the meter's own unit.",
                    normal="the customer's own day.",
                ),
            ],
        ],
    )


def _events() -> Row:
    return Row(
        "Limits and log lines",
        [
            [
                lines(
                    "Refusals by limit",
                    Query(grown(_REFUSED, _WHO, by=("limit_type",), over="$__rate_interval"), "{{limit_type}}"),
                    unit=COUNT,
                    shows="Limit checks and reservations that were refused, by limit.",
                    normal="none.",
                    stacked=True,
                )
            ],
            [
                log_lines(
                    "Log lines of the customer",
                    f'{{service_namespace="meterscope", {ENVIRONMENT}}} | customer_id="$customer_id"',
                    shows="What processes wrote while they worked for the customer: thresholds and alerts among it.",
                    normal="few.",
                )
            ],
        ],
    )
