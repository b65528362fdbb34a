"""The alerts service's variables."""

from dataclasses import dataclass
from datetime import timedelta

from services.kit.config import KitSettings
from services.kit.settings import POSTGRESQL, REDIS, variable


@dataclass(frozen=True)
class Settings:
    """Read once at the start of a process."""

    kit: KitSettings
    database_url: str = variable(
        "ALERTS_DATABASE_URL",
        "DATABASE_URL",
        secret=True,
        schemes=POSTGRESQL,
        help="PostgreSQL of the alerts service, postgresql://…",
    )
    redis_url: str = variable(
        "REDIS_URL", secret=True, schemes=REDIS, help="Redis or Valkey that carries the jobs, redis://…"
    )
    address: str = variable(
        "METERSCOPE_ALERTS_ADDRESS", default="127.0.0.1:8084", help="host:port of the alerts service's gRPC server"
    )
    worker_address: str = variable(
        "METERSCOPE_ALERTS_WORKER_ADDRESS",
        default="127.0.0.1:8094",
        help="host:port where the alerts worker answers health checks",
    )
    database_schema: str = variable(
        "METERSCOPE_ALERTS_SCHEMA", default="alerts", help="PostgreSQL schema of the alerts service's tables"
    )
    allow_private_webhooks: bool = variable(
        "METERSCOPE_ALLOW_PRIVATE_WEBHOOKS",
        default=False,
        help="true lets webhooks go to private addresses and over http",
    )
    webhook_timeout: timedelta = variable(
        "METERSCOPE_WEBHOOK_TIMEOUT_SECONDS",
        default=timedelta(seconds=5),
        minimum=0.1,
        help="time that a webhook's receiver has to answer",
    )
    notification_attempts: int = variable(
        "METERSCOPE_NOTIFICATION_ATTEMPTS",
        default=14,
        minimum=1,
        help="attempts to deliver a notification before it is dead",
    )
    notification_retry: timedelta = variable(
        "METERSCOPE_NOTIFICATION_RETRY_SECONDS",
        default=timedelta(seconds=5),
        minimum=0.01,
        help="wait after a failed attempt to deliver; doubles with each, up to six hours",
    )
    sink_series: int = variable(
        "METERSCOPE_METRICS_SINK_SERIES",
        default=100_000,
        minimum=1,
        help="metric series that are kept for /metrics; a histogram is one",
    )
    sink_mib: int = variable(
        "METERSCOPE_METRICS_SINK_MIB", default=64, minimum=1, help="memory that they may take, in MiB"
    )
    jaeger_url: str | None = variable("JAEGER_URL", default=None, help="base URL of Jaeger, for links to traces")
    grafana_url: str | None = variable("GRAFANA_URL", default=None, help="base URL of Grafana, for links to dashboards")
