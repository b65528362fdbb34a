"""Whether Redis answers, how fast, and what it holds."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from scripts.dashboards.board import Row, board
from scripts.dashboards.panel import (
    BYTES,
    COUNT,
    PER_SECOND,
    SECONDS,
    SHARE,
    Query,
    fail_at,
    good_from,
    lines,
    log_lines,
    number,
    warn_at,
)
from scripts.dashboards.promql import ENVIRONMENT, latest, lowest, per_second, quantile, ratio

_DURATION = "billing_redis_operation_duration_seconds"
_CHECKS = "billing_limit_checks_total"


def redis() -> Dashboard:
    """Return the dashboard."""
    return board(
        "meterscope-redis",
        "Redis health",
        "Redis carries the live counters that limit checks read, and the queues of jobs. It may be lost: PostgreSQL has all of it.",
        [_now(), _operations(), _errors()],
    )


def _now() -> Row:
    return Row(
        "Now",
        [
            [
                number(
                    "Redis is up",
                    Query(lowest("billing_component_up", 'component="redis"'), "redis"),
                    unit=COUNT,
                    shows="1 where all processes that need Redis reach it, 0 where one of them does not.",
                    normal="1.",
                    bounds=good_from(0.5, 1),
                    worst="red",
                ),
                number(
                    "Memory",
                    Query(latest("billing_redis_memory_bytes"), "used"),
                    unit=BYTES,
                    shows="Memory that Redis uses.",
                    normal="grows with the number of customers, and levels off within a month.",
                ),
                number(
                    "Connections",
                    Query(latest("billing_redis_connections_active"), "open"),
                    unit=COUNT,
                    shows="Connections that Redis has open.",
                    normal="a few for each process, steady.",
                ),
                number(
                    "Keys of usage",
                    Query(latest("billing_redis_usage_keys_total"), "keys"),
                    unit=COUNT,
                    shows="Live counters that Redis holds: one key for each customer and month.",
                    normal="grows with the number of customers; falls when months expire.",
                ),
            ]
        ],
    )


def _operations() -> Row:
    return Row(
        "Operations",
        [
            [
                lines(
                    "p95 by operation",
                    Query(quantile(0.95, _DURATION, by=("operation",)), "{{operation}}"),
                    unit=SECONDS,
                    shows="What 95 % of the commands to Redis take less than, by command.",
                    normal="below 5 ms; an alert is raised above 100 ms.",
                    bounds=fail_at(0.1),
                    alerts=("BillingRedisHighLatency",),
                ),
                lines(
                    "p50, p95, p99",
                    *(Query(quantile(share, _DURATION), f"p{share * 100:.0f}") for share in (0.5, 0.95, 0.99)),
                    unit=SECONDS,
                    shows="How long commands to Redis take, all together.",
                    normal="below 5 ms; they rise together when the network or Redis is slow, p99 alone when it is busy.",
                    bounds=fail_at(0.1),
                ),
            ],
            [
                lines(
                    "Commands by operation",
                    Query(per_second(f"{_DURATION}_count", by=("operation",)), "{{operation}}"),
                    unit=PER_SECOND,
                    shows="Commands to Redis each second, by command.",
                    normal="follows limit checks and the turns of the rollup.",
                ),
                lines(
                    "Connections, keys",
                    Query(latest("billing_redis_connections_active"), "connections"),
                    Query(latest("billing_redis_usage_keys_total"), "keys of usage"),
                    unit=COUNT,
                    shows="Connections that Redis has open, and live counters that it holds.",
                    normal="steady; keys that fall to 0 are a Redis that was emptied: they come back by themselves.",
                ),
                lines(
                    "Memory",
                    Query(latest("billing_redis_memory_bytes"), "used"),
                    unit=BYTES,
                    shows="Memory that Redis uses.",
                    normal="levels off within a month.",
                ),
            ],
        ],
    )


def _errors() -> Row:
    fallback = ratio(per_second(_CHECKS, 'answered_from="database"'), per_second(_CHECKS))
    return Row(
        "Errors",
        [
            [
                lines(
                    "Limit checks that PostgreSQL had to answer",
                    Query(fallback, "from the database"),
                    unit=SHARE,
                    shows="Share of limit checks for which Redis had no counters, did not answer or was not there. The answers are "
                    "right, but slower.",
                    normal="near 0; 100 % while Redis is away.",
                    bounds=warn_at(0.5),
                    alerts=("BillingLimitChecksFromDatabase",),
                ),
                lines(
                    "Up",
                    Query(
                        latest("billing_component_up", 'component="redis"', by=("service_name",)), "{{service_name}}"
                    ),
                    unit=COUNT,
                    shows="1 where a process reaches Redis, 0 where it does not.",
                    normal="1; an alert is raised after a minute of 0.",
                    alerts=("BillingRedisDown",),
                ),
            ],
            [
                log_lines(
                    "Log lines about Redis",
                    f'{{service_namespace="meterscope", {ENVIRONMENT}}} |~ `(?i)redis|valkey`',
                    shows="What processes wrote about Redis.",
                    normal="none.",
                )
            ],
        ],
    )
