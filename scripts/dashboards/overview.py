"""What customers use, what limits refuse, whether the API answers."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from scripts.dashboards.board import Row, board, choice
from scripts.dashboards.panel import (
    COUNT,
    PER_SECOND,
    PERCENT,
    REQUESTS_PER_SECOND,
    SHARE,
    Query,
    bars,
    fail_at,
    good_from,
    lines,
    number,
    warn_and_fail_at,
    warn_at,
)
from scripts.dashboards.promql import grown, highest, latest, per_second, ratio, summed

_REQUESTS = "billing_http_requests_total"
_USAGE = "billing_usage_increment_total"
_FAILED = 'status_code=~"5.."'


def overview() -> Dashboard:
    """Return the dashboard."""
    return board(
        "meterscope-overview",
        "Billing overview",
        "Who uses how much of what, what limits refuse, and whether the API answers.",
        [_now(), _usage(), _limits(), _intake(), _integrity(), _api()],
        variables=[choice("metric_type", "Meter", _USAGE, "metric_type", several=False)],
    )


def _now() -> Row:
    success = f"1 - ({ratio(per_second(_REQUESTS, _FAILED), per_second(_REQUESTS))})"
    return Row(
        "Now",
        [
            [
                number(
                    "Requests",
                    Query(per_second(_REQUESTS), "requests"),
                    unit=REQUESTS_PER_SECOND,
                    shows="HTTP requests that the gateway answers each second.",
                    normal="follows the day of your customers.",
                ),
                number(
                    "Success",
                    Query(success, "success"),
                    unit=SHARE,
                    shows="Share of HTTP requests that were not answered with 5xx. Empty without requests.",
                    normal="above 99.9 %.",
                    bounds=good_from(0.99, 0.999),
                    worst="red",
                ),
                number(
                    "Events accepted",
                    Query(per_second("billing_events_ingested_total", 'outcome="accepted"'), "accepted"),
                    unit=PER_SECOND,
                    shows="Usage events that were stored each second, without duplicates.",
                    normal="follows the day of your customers.",
                ),
                number(
                    "Refused in the last hour",
                    Query(grown("billing_limit_exceeded_total", over="1h"), "refused"),
                    unit=COUNT,
                    shows="Limit checks and reservations that were refused in the last hour.",
                    normal="what your limits are meant to refuse.",
                    bounds=warn_at(360),
                ),
                number(
                    "Customers without a plan",
                    Query(summed(latest("billing_tenant_using_defaults", by=("customer_id",))), "customers"),
                    unit=COUNT,
                    shows="Customers whose limits are the defaults, as no plan was found for them.",
                    normal="0, or those that are being set up.",
                    bounds=warn_at(1),
                ),
                number(
                    "Active customers",
                    Query(latest("billing_customers_total", 'status="active"'), "active"),
                    unit=COUNT,
                    shows="Customers that billing knows as active.",
                    normal="grows.",
                ),
            ]
        ],
    )


def _usage() -> Row:
    of_meter = grown(_USAGE, 'metric_type="$metric_type"', by=("customer_id",))
    return Row(
        "Usage",
        [
            [
                bars(
                    "Top 10 customers by $metric_type",
                    Query(highest(10, of_meter), "{{customer_id}}"),
                    unit=COUNT,
                    shows="Who used the most of the chosen meter in the dashboard's range. Choose `messages`, `storage` …; "
                    "customers beyond METRICS_MAX_CUSTOMERS are counted together as `other`.",
                    normal="a few large customers, the same ones every day.",
                    customers=True,
                ),
                bars(
                    "Top 10 customers by used share of a limit",
                    Query(
                        highest(10, latest("billing_usage_percentage", by=("customer_id", "limit_type"))),
                        "{{customer_id}} {{limit_type}}",
                    ),
                    unit=PERCENT,
                    shows="Who is nearest to a limit, whichever it is.",
                    normal="below 80 %: alerts are raised at 80 and 95 %.",
                    bounds=warn_and_fail_at(80, 95),
                    customers=True,
                ),
                bars(
                    "Top 10 customers by used share of storage",
                    Query(
                        highest(10, latest("billing_usage_percentage", 'limit_type=~"storage.*"', by=("customer_id",))),
                        "{{customer_id}}",
                    ),
                    unit=PERCENT,
                    shows="Who is nearest to a limit of a meter whose name begins with `storage`.",
                    normal="below 80 %.",
                    bounds=warn_and_fail_at(80, 95),
                    customers=True,
                ),
            ],
            [
                lines(
                    "Usage by meter",
                    Query(per_second(_USAGE, by=("metric_type",)), "{{metric_type}}"),
                    unit=PER_SECOND,
                    shows="How much of each meter comes into the totals each second, in the meter's own unit.",
                    normal="no meter falls to 0 while the others go on.",
                ),
                lines(
                    "Turns of the rollup that failed",
                    Query(per_second("billing_usage_increment_errors_total", by=("error_type",)), "{{error_type}}"),
                    unit=PER_SECOND,
                    shows="Turns of the rollup that failed and were repeated, each second, by what went wrong. None loses or doubles "
                    "anybody's usage.",
                    normal="none; an alert is raised above 0.01 a second.",
                    bounds=fail_at(0.01),
                    alerts=("BillingUsageIncrementErrors",),
                ),
                lines(
                    "Anomalies",
                    Query(grown("billing_usage_anomalies_total", by=("kind",), over="1h"), "{{kind}}"),
                    unit=COUNT,
                    shows="Customers' meters whose usage was found to be unlike the same hours of the weeks before, in the last hour.",
                    normal="none.",
                    bounds=warn_at(1),
                    alerts=("BillingUsageAnomaly",),
                ),
            ],
        ],
    )


def _limits() -> Row:
    return Row(
        "Limits and plans",
        [
            [
                lines(
                    "Refusals per hour",
                    Query(grown("billing_limit_exceeded_total", by=("limit_type",), over="1h"), "{{limit_type}}"),
                    unit=COUNT,
                    shows="Limit checks and reservations that were refused in the hour before, by limit.",
                    normal="what your limits are meant to refuse; an alert is raised above 360 an hour for a customer.",
                    bounds=warn_at(360),
                ),
                bars(
                    "Customers per plan",
                    Query(latest("billing_tenants_per_plan", by=("plan_id", "plan_name")), "{{plan_name}}"),
                    unit=COUNT,
                    shows="How many customers have each plan.",
                    normal="moves slowly.",
                ),
            ]
        ],
    )


def _intake() -> Row:
    events, calls, notes = "billing_events_ingested_total", "billing_cdr_processed_total", "billing_notifications_total"
    return Row(
        "In and out",
        [
            [
                lines(
                    "Events that do not count",
                    Query(
                        ratio(per_second(events, 'outcome!~"accepted|duplicate"'), per_second(events)),
                        "rejected, in conflict or in quarantine",
                    ),
                    unit=SHARE,
                    shows="Share of the events that come in that neither count nor have counted before.",
                    normal="near 0; an alert is raised above 5 %, and when events come in at half the rate of the hour before.",
                    bounds=fail_at(0.05),
                    alerts=("BillingIngestionSuccessLow", "BillingIngestionRateDropped"),
                ),
                lines(
                    "Call records that fail",
                    Query(ratio(per_second(calls, 'status="failed"'), per_second(calls)), "failed"),
                    unit=SHARE,
                    shows="Share of call records that could not be stored. More about them: the dashboard Call records.",
                    normal="below 1 %; an alert is raised above 5 %.",
                    bounds=fail_at(0.05),
                    alerts=("BillingCdrFailureRateHigh",),
                ),
                lines(
                    "Notifications that fail",
                    Query(ratio(per_second(notes, 'status=~"failed|dead"'), per_second(notes)), "failed or given up"),
                    unit=SHARE,
                    shows="Share of the attempts to notify that failed. More about them: the dashboard Background jobs.",
                    normal="0; an alert is raised above 10 %.",
                    bounds=fail_at(0.1),
                    alerts=("BillingNotificationsFailing", "BillingNotificationsDead"),
                ),
            ]
        ],
    )


def _integrity() -> Row:
    return Row(
        "Integrity",
        [
            [
                lines(
                    "Totals that differ from their events",
                    Query(latest("billing_integrity_totals_drift"), "quarters of an hour"),
                    unit=COUNT,
                    shows="Quarters of an hour whose totals are not what a recount of their events gives.",
                    normal="0, always.",
                    bounds=fail_at(1),
                    alerts=("BillingTotalsDrift", "BillingTotalsUnchecked"),
                ),
                lines(
                    "Ledger",
                    Query(latest("billing_integrity_ledger_imbalance", by=("currency",)), "{{currency}}"),
                    unit=COUNT,
                    shows="Debits less credits, by currency, in its main unit.",
                    normal="0, always.",
                    bounds=fail_at(0.01),
                    alerts=("BillingLedgerImbalance",),
                ),
            ]
        ],
    )


def _api() -> Row:
    requests, errors = per_second(_REQUESTS), per_second(_REQUESTS, _FAILED)
    return Row(
        "API",
        [
            [
                lines(
                    "Requests and errors",
                    Query(requests, "requests"),
                    Query(f"{errors} or vector(0)", "answered with 5xx"),
                    unit=REQUESTS_PER_SECOND,
                    shows="HTTP requests that the gateway answers each second, and those of them that it answered with 5xx.",
                    normal="no errors.",
                ),
                lines(
                    "Share of errors",
                    Query(ratio(errors, requests), "answered with 5xx"),
                    unit=SHARE,
                    shows="Share of HTTP requests that were answered with 5xx.",
                    normal="below 1 %.",
                    bounds=warn_and_fail_at(0.01, 0.05),
                ),
            ]
        ],
    )
