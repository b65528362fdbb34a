"""Variables of the usage service, read once."""

from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal

from services.kit.config import KitSettings
from services.kit.settings import POSTGRESQL, REDIS, variable
from services.usage.domain.anomaly import check_factor
from services.usage.domain.limit import Limit, parse_defaults


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
    calls: int = variable(
        "METERSCOPE_USAGE_CALLS",
        default=64,
        minimum=1,
        help="calls that a usage server handles at once, instead of METERSCOPE_GRPC_THREADS: most of them wait together",
    )
    streams: int = variable(
        "METERSCOPE_USAGE_STREAMS",
        default=8,
        minimum=1,
        help="streams of events that a server process has open at a time; each occupies one of METERSCOPE_USAGE_CALLS",
    )
    accept_days: int = variable(
        "METERSCOPE_USAGE_ACCEPT_DAYS", default=400, minimum=1, help="days back from now that events are accepted"
    )
    raw_event_days: int = variable(
        "METERSCOPE_USAGE_RAW_EVENT_DAYS",
        default=400,
        minimum=1,
        help="days that raw events are kept at least; whole months go then, when they are sealed and none is accepted",
    )
    raw_event_archive: bool = variable(
        "METERSCOPE_USAGE_RAW_EVENT_ARCHIVE",
        default=False,
        help="months of raw events are kept as tables `events_archive_YYYYMM` instead of being dropped",
    )
    refused_days: int = variable(
        "METERSCOPE_USAGE_REFUSED_DAYS",
        default=90,
        minimum=1,
        help="days that held events are kept which were refused at last",
    )
    report_days: int = variable(
        "METERSCOPE_USAGE_REPORT_DAYS",
        default=7,
        minimum=1,
        help="days that reports over long ranges are kept, from when they were asked for",
    )
    drift_every: timedelta = variable(
        "METERSCOPE_USAGE_DRIFT_SECONDS",
        default=timedelta(seconds=10),
        minimum=0.1,
        help="how often a few totals are compared with a recount of their raw events",
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
    default_limits_: tuple[str, ...] = variable(
        "METERSCOPE_USAGE_DEFAULT_LIMITS",
        default=(),
        check=parse_defaults,
        help="hard limits by period of customers without a plan, such as requests=1000,bytes=5000000; of the worker",
    )
    reservation: timedelta = variable(
        "METERSCOPE_USAGE_RESERVATION_SECONDS",
        default=timedelta(minutes=5),
        minimum=1,
        help="how long reserved quota is held for those who do not say",
    )
    reservation_max: timedelta = variable(
        "METERSCOPE_USAGE_RESERVATION_MAX_SECONDS",
        default=timedelta(days=1),
        minimum=1,
        help="how long reserved quota is held at most",
    )
    reservation_retention: timedelta = variable(
        "METERSCOPE_USAGE_RESERVATION_RETENTION_SECONDS",
        default=timedelta(days=30),
        minimum=0,
        help="time that reservations which hold no more are kept to look at",
    )
    billing_address: str = variable("METERSCOPE_BILLING_ADDRESS", default="127.0.0.1:8082", help="the billing service")
    cost_every: timedelta = variable(
        "METERSCOPE_USAGE_COST_SECONDS",
        default=timedelta(seconds=300),
        minimum=1,
        help="how often the cost of customers' days is brought up to their usage",
    )
    anomaly_every: timedelta = variable(
        "METERSCOPE_USAGE_ANOMALY_SECONDS",
        default=timedelta(hours=1),
        minimum=1,
        help="how often usage that is not what it usually is is looked for",
    )
    anomaly_window_hours: int = variable(
        "METERSCOPE_USAGE_ANOMALY_WINDOW_HOURS",
        default=24,
        minimum=1,
        help="length of the windows that are compared with the weeks before",
    )
    anomaly_factor: Decimal = variable(
        "METERSCOPE_USAGE_ANOMALY_FACTOR",
        default=Decimal("2.0"),
        check=check_factor,
        help="usage above so many times what is expected, or below that part of it, is an anomaly",
    )
    metrics_max_customers: int = variable(
        "METRICS_MAX_CUSTOMERS",
        default=1000,
        minimum=0,
        help="customers with a metric label of their own; the others are counted as `other`",
    )

    @property
    def default_limits(self) -> tuple[Limit, ...]:
        """What METERSCOPE_USAGE_DEFAULT_LIMITS says."""
        return parse_defaults(self.default_limits_)
