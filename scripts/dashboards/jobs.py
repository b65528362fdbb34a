"""What workers do, what waits, what was given up."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from scripts.dashboards.board import Row, board
from scripts.dashboards.panel import (
    COUNT,
    PER_SECOND,
    SECONDS,
    SHARE,
    Query,
    bars,
    fail_at,
    lines,
    log_lines,
    number,
    warn_and_fail_at,
    warn_at,
)
from scripts.dashboards.promql import ENVIRONMENT, grown, latest, per_second, quantile, ratio, summed

_RUNS = "billing_jobs_total"
_DURATION = "billing_job_processing_duration_seconds"
_FAILED = 'status=~"failed|dead|lost"'


def jobs() -> Dashboard:
    """Return the dashboard."""
    return board(
        "meterscope-jobs",
        "Background jobs",
        "Every job is a row in a service's outbox until it is done: nothing is lost when a worker or Redis dies, it waits.",
        [_now(), _runs(), _periodic(), _notifications(), _lines()],
    )


def _now() -> Row:
    return Row(
        "Now",
        [
            [
                number(
                    "Waiting",
                    Query(summed(latest("billing_jobs_queued", by=("queue",))), "jobs"),
                    unit=COUNT,
                    shows="Jobs that are not done, of all services.",
                    normal="near 0; some hundreds during a bill run.",
                    bounds=warn_at(1000),
                    alerts=("BillingOutboxBacklog",),
                ),
                number(
                    "Stuck",
                    Query(summed(latest("billing_jobs_stuck", by=("queue",))), "jobs"),
                    unit=COUNT,
                    shows="Jobs that are not done five minutes after they were due.",
                    normal="0; an alert is raised otherwise.",
                    bounds=fail_at(1),
                    alerts=("BillingJobsStuck",),
                ),
                number(
                    "Dead",
                    Query(summed(latest("billing_jobs_dead", by=("queue",))), "jobs"),
                    unit=COUNT,
                    shows="Jobs that were given up after their last attempt. They stay until somebody sends them again.",
                    normal="0; an alert is raised otherwise.",
                    bounds=fail_at(1),
                    alerts=("BillingJobsDead",),
                ),
                number(
                    "Failed in the last hour",
                    Query(grown(_RUNS, _FAILED, over="1h"), "runs"),
                    unit=COUNT,
                    shows="Runs that failed, were given up or lost their lease in the last hour. Most are tried again.",
                    normal="0; an alert is raised above 100 of one job.",
                    bounds=warn_and_fail_at(1, 100),
                    alerts=("BillingJobsFailed",),
                ),
            ]
        ],
    )


def _runs() -> Row:
    return Row(
        "Runs",
        [
            [
                lines(
                    "Runs by queue",
                    Query(per_second(_RUNS, by=("queue", "status")), "{{queue}} {{status}}"),
                    unit=PER_SECOND,
                    shows="Runs of jobs each second, by queue (a service's) and how they ended.",
                    normal="`success`; `postponed` is a job that asked to run later.",
                ),
                lines(
                    "Waiting, stuck, dead by queue",
                    Query(latest("billing_jobs_queued", by=("queue",)), "{{queue}} waiting"),
                    Query(latest("billing_jobs_stuck", by=("queue",)), "{{queue}} stuck"),
                    Query(latest("billing_jobs_dead", by=("queue",)), "{{queue}} dead"),
                    unit=COUNT,
                    shows="Jobs that are not done, that are late by five minutes, and that were given up.",
                    normal="what waits goes down again within a minute.",
                ),
            ],
            [
                lines(
                    "p95 by job",
                    Query(quantile(0.95, _DURATION, by=("queue", "job_name")), "{{queue}} {{job_name}}"),
                    unit=SECONDS,
                    shows="What 95 % of the runs take less than, by job. A dot is one run whose trace is kept.",
                    normal="below 1 s; reports and seals of large customers take longer.",
                    bounds=warn_at(30),
                    exemplars=True,
                ),
                lines(
                    "Share of failed runs",
                    Query(ratio(per_second(_RUNS, _FAILED), per_second(_RUNS)), "failed"),
                    unit=SHARE,
                    shows="Share of runs that failed, were given up or lost their lease.",
                    normal="0.",
                    bounds=warn_and_fail_at(0.01, 0.05),
                ),
                lines(
                    "Failed runs by job",
                    Query(
                        per_second(_RUNS, _FAILED, by=("queue", "job_name", "status")),
                        "{{queue}} {{job_name}} {{status}}",
                    ),
                    unit=PER_SECOND,
                    shows="Runs that failed, were given up or lost their lease, each second, by job.",
                    normal="0 for each.",
                ),
            ],
        ],
    )


def _periodic() -> Row:
    by = ("service_name", "job_name")
    age = f"(time() - ({latest('billing_last_job_timestamp', by=by)} > 0))"
    return Row(
        "Periodic jobs",
        [
            [
                bars(
                    "Since the last success",
                    Query(age, "{{service_name}} {{job_name}}"),
                    unit=SECONDS,
                    shows="How long ago each periodic job last succeeded. Jobs that have not succeeded yet are not here.",
                    normal="at most as long as the job's period; an alert is raised when it is overdue.",
                    alerts=("BillingJobHeartbeatMissing",),
                ),
                lines(
                    "Periods since the last success",
                    Query(f"{age} / {latest('billing_job_interval_seconds', by=by)}", "{{service_name}} {{job_name}}"),
                    unit=COUNT,
                    shows="How many of its periods ago each periodic job last succeeded.",
                    normal="saw teeth of the height 1.",
                    bounds=warn_at(3),
                ),
            ]
        ],
    )


def _notifications() -> Row:
    return Row(
        "Notifications",
        [
            [
                lines(
                    "Attempts by channel",
                    Query(
                        per_second("billing_notifications_total", by=("channel", "status")), "{{channel}} {{status}}"
                    ),
                    unit=PER_SECOND,
                    shows="Attempts to notify each second, by channel and what came of them.",
                    normal="`delivered`.",
                ),
                lines(
                    "p95 until delivered",
                    Query(quantile(0.95, "billing_notification_delivery_seconds", by=("channel",)), "{{channel}}"),
                    unit=SECONDS,
                    shows="What 95 % of the notifications took less than, from the alert to their end.",
                    normal="below 1 s.",
                    bounds=warn_at(1),
                    exemplars=True,
                ),
            ]
        ],
    )


def _lines() -> Row:
    workers = f'{{service_namespace="meterscope", service_name=~".+-worker", {ENVIRONMENT}}}'
    return Row(
        "Log lines",
        [
            [
                log_lines(
                    "Warnings and errors of workers",
                    f'{workers} | severity_text=~"WARN.*|ERROR|FATAL|CRITICAL"',
                    shows="What workers wrote as a warning or worse. Opened, a line leads to its trace.",
                    normal="alerts alone, where a channel writes them to the log.",
                )
            ]
        ],
    )
