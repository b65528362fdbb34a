"""Variables of the usage service, read once."""

from dataclasses import dataclass
from datetime import timedelta

from services.kit.config import KitSettings
from services.kit.settings import POSTGRESQL, REDIS, variable


@dataclass(frozen=True)
class Settings:
    """What the usage service needs to know."""

    kit: KitSettings
    database_url: str = variable(
        "USAGE_DATABASE_URL", "DATABASE_URL", secret=True, schemes=POSTGRESQL, help="PostgreSQL of the usage service"
    )
    redis_url: str = variable(
        "REDIS_URL", secret=True, schemes=REDIS, help="Redis or Valkey: live counters, and the jobs' broker"
    )
    database_schema: str = variable(
        "METERSCOPE_USAGE_SCHEMA", default="usage", help="schema of the usage service's tables"
    )
    address: str = variable(
        "METERSCOPE_USAGE_ADDRESS", default="127.0.0.1:8081", help="where the usage service listens"
    )
    worker_address: str = variable(
        "METERSCOPE_USAGE_WORKER_ADDRESS", default="127.0.0.1:8091", help="where the usage worker answers health checks"
    )
    alerts_address: str = variable("METERSCOPE_ALERTS_ADDRESS", default="127.0.0.1:8084", help="the alerts service")
    ingest_writers: int = variable(
        "METERSCOPE_USAGE_INGEST_WRITERS",
        default=3,
        minimum=1,
        help="transactions in which a server process stores events at a time; what arrives meanwhile shares the next",
    )
    accept_days: int = variable(
        "METERSCOPE_USAGE_ACCEPT_DAYS", default=400, minimum=1, help="days back from now that events are accepted"
    )
    replay_every: timedelta = variable(
        "METERSCOPE_USAGE_REPLAY_SECONDS",
        default=timedelta(seconds=60),
        minimum=1,
        help="how often held events are replayed by themselves",
    )
    counter_timeout: timedelta = variable(
        "METERSCOPE_USAGE_COUNTER_TIMEOUT_SECONDS",
        default=timedelta(milliseconds=100),
        minimum=0.001,
        help="how long a limit check waits for Redis before the database answers",
    )
    metrics_max_customers: int = variable(
        "METRICS_MAX_CUSTOMERS",
        default=1000,
        minimum=0,
        help="customers with a metric label of their own; the others are counted as `other`",
    )
