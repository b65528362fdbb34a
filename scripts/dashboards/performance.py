"""How long each step takes, from the request to the total that an invoice is made from."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from scripts.dashboards.board import Row, board, service
from scripts.dashboards.panel import (
    COUNT,
    PER_SECOND,
    SECONDS,
    Query,
    fail_at,
    lines,
    warn_and_fail_at,
    warn_at,
)
from scripts.dashboards.promql import foreign_quantile, latest, per_second, quantile

_OF_SERVICE = 'service_name=~"$service"'
_INGESTION = "billing_event_ingestion_duration_seconds"
_QUANTILES = (0.5, 0.95, 0.99)


def performance() -> Dashboard:
    """Return the dashboard."""
    return board(
        "meterscope-performance",
        "Performance",
        "How long each step takes: answers, statements, queues, and the way of an event into the totals.",
        [_answers(), _events(), _totals(), _queues()],
        variables=[service()],
        since="now-1h",
    )


def _answers() -> Row:
    return Row(
        "Answers",
        [
            [
                lines(
                    "REST, p50, p95, p99",
                    *(
                        Query(quantile(share, "billing_http_request_duration_seconds"), f"p{share * 100:.0f}")
                        for share in _QUANTILES
                    ),
                    unit=SECONDS,
                    shows="How long HTTP requests take at the gateway. A dot is one request whose trace is kept.",
                    normal="p95 below 0.5 s.",
                    bounds=warn_and_fail_at(0.5, 1),
                    exemplars=True,
                ),
                lines(
                    "gRPC, p95 by process",
                    Query(
                        quantile(0.95, "rpc_server_call_duration_seconds", _OF_SERVICE, by=("service_name",)),
                        "{{service_name}}",
                    ),
                    unit=SECONDS,
                    shows="What 95 % of the calls take less than, by the process that answers.",
                    normal="below 0.1 s.",
                    bounds=fail_at(1),
                    exemplars=True,
                ),
                lines(
                    "Between processes, p95",
                    Query(
                        foreign_quantile(0.95, "traces_service_graph_request_server_seconds", by=("client", "server")),
                        "{{client}} → {{server}}",
                    ),
                    unit=SECONDS,
                    shows="What 95 % of the calls between two processes take less than, as the collector counts them from spans, "
                    "before any trace is dropped.",
                    normal="below 0.1 s.",
                    bounds=fail_at(1),
                ),
            ],
            [
                lines(
                    "Database statements, p95",
                    Query(
                        quantile(
                            0.95,
                            "db_client_operation_duration_seconds",
                            _OF_SERVICE,
                            by=("db_namespace", "db_operation_name"),
                        ),
                        "{{db_namespace}} {{db_operation_name}}",
                    ),
                    unit=SECONDS,
                    shows="What 95 % of the statements take less than, by database and kind.",
                    normal="below 50 ms; an alert is raised above 1 s.",
                    bounds=fail_at(1),
                    alerts=("BillingDatabaseQueriesSlow",),
                ),
                lines(
                    "Database statements",
                    Query(
                        per_second("db_client_operation_duration_seconds_count", _OF_SERVICE, by=("db_namespace",)),
                        "{{db_namespace}}",
                    ),
                    unit=PER_SECOND,
                    shows="Statements each second, by database.",
                    normal="follows the load.",
                ),
                lines(
                    "Redis, p95",
                    Query(quantile(0.95, "billing_redis_operation_duration_seconds"), "p95"),
                    unit=SECONDS,
                    shows="What 95 % of the commands to Redis take less than.",
                    normal="below 5 ms.",
                    bounds=fail_at(0.1),
                ),
            ],
        ],
    )


def _events() -> Row:
    return Row(
        "Events",
        [
            [
                lines(
                    "Ingestion, p50, p95, p99",
                    *(Query(quantile(share, _INGESTION), f"p{share * 100:.0f}") for share in _QUANTILES),
                    unit=SECONDS,
                    shows="How long it takes until a batch of events is stored and acknowledged. A dot is one batch whose trace is kept.",
                    normal="p95 below 0.1 s; an alert is raised above 1 s.",
                    bounds=fail_at(1),
                    exemplars=True,
                    alerts=("BillingIngestionLatencyHigh",),
                ),
                lines(
                    "Events by outcome",
                    Query(per_second("billing_events_ingested_total", by=("outcome",)), "{{outcome}}"),
                    unit=PER_SECOND,
                    shows="Events each second by what became of them. Duplicates count once; conflicts and rejected ones not at all; "
                    "those in quarantine wait for their customer or meter.",
                    normal="`accepted`, with some duplicates of senders that tried again.",
                    stacked=True,
                    alerts=("BillingIngestionSuccessLow", "BillingIngestionRateDropped"),
                ),
                lines(
                    "From an event to its being billable",
                    *(
                        Query(quantile(share, "billing_event_lag_seconds"), f"p{share * 100:.0f}")
                        for share in _QUANTILES
                    ),
                    unit=SECONDS,
                    shows="From an event's own time to its being in the totals. Backfilled events are as old as they are.",
                    normal="below 1 s for live traffic.",
                    bounds=warn_at(30),
                ),
            ]
        ],
    )


def _totals() -> Row:
    return Row(
        "Totals",
        [
            [
                lines(
                    "Age of the totals",
                    Query(latest("billing_rollup_lag_seconds"), "totals"),
                    Query(latest("billing_rollup_oldest_snapshot_seconds"), "oldest snapshot of the server"),
                    unit=SECONDS,
                    shows="How old the newest complete totals are, and the oldest snapshot that somebody reads in PostgreSQL.",
                    normal="totals a quarter of a second; an alert is raised above 10 s.",
                    bounds=fail_at(10),
                    alerts=("BillingRollupLagging", "BillingSnapshotOld"),
                ),
                lines(
                    "Turns of the rollup",
                    *(
                        Query(quantile(share, "billing_rollup_duration_seconds"), f"p{share * 100:.0f}")
                        for share in _QUANTILES
                    ),
                    unit=SECONDS,
                    shows="How long the rollup's turns take: each adds what was stored since the one before it.",
                    normal="below 0.1 s.",
                    bounds=warn_at(1),
                    alerts=("BillingRollupStopped",),
                ),
                lines(
                    "Who holds the rollup back",
                    Query(
                        latest("billing_rollup_held_back_seconds", by=("database", "application")),
                        "{{application}} on {{database}}",
                    ),
                    unit=SECONDS,
                    shows="How long transactions of other programs have been open that the rollup must wait for.",
                    normal="empty.",
                    bounds=fail_at(10),
                    alerts=("BillingRollupHeldBack",),
                ),
            ]
        ],
    )


def _queues() -> Row:
    return Row(
        "Queues",
        [
            [
                lines(
                    "Waiting jobs",
                    Query(latest("billing_jobs_queued", by=("queue",)), "{{queue}}"),
                    unit=COUNT,
                    shows="Jobs that are not done, by queue.",
                    normal="near 0.",
                    bounds=warn_at(1000),
                ),
                lines(
                    "Runs of jobs, p95",
                    Query(quantile(0.95, "billing_job_processing_duration_seconds", by=("queue",)), "{{queue}}"),
                    unit=SECONDS,
                    shows="What 95 % of the runs take less than, by queue.",
                    normal="below 1 s.",
                    bounds=warn_at(30),
                    exemplars=True,
                ),
                lines(
                    "Notifications, p95",
                    Query(quantile(0.95, "billing_notification_delivery_seconds"), "p95"),
                    unit=SECONDS,
                    shows="What 95 % of the notifications took less than, from the alert to their end.",
                    normal="below 1 s.",
                    bounds=warn_at(1),
                ),
            ]
        ],
    )
