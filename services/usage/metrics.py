"""The instruments of usage, declared once. Names and labels: the telemetry catalogue."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from opentelemetry.metrics import Meter, Observation

from services.kit import interceptors
from services.kit.instruments import CUSTOMER, Counter, Gauge, Histogram, Label
from services.usage.domain.correction import Kind
from services.usage.domain.verdict import OUTCOME_NAMES, Outcome

# How events come in; what says nothing of it, or something else, is `grpc`.
GRPC: Final = "grpc"
STREAM: Final = "stream"
TRANSPORTS: Final = (GRPC, STREAM, "rest", "cloudevents")
# Customers beyond METRICS_MAX_CUSTOMERS, as counters name them.
OTHER: Final = "other"
# Whose usage a turn of the rollup could not add, where that is not known: that of all who sent some.
ALL: Final = "all"
UNAVAILABLE: Final = "unavailable"
DATA: Final = "data"
INTERNAL: Final = "internal"

_CUSTOMER: Final = Label(CUSTOMER)
_METER: Final = Label("metric_type")
_LIMIT: Final = Label("limit_type")
_TRANSPORT: Final = Label("transport", TRANSPORTS)
_STATUS: Final = Label("status", ("success", "failed"))
_INGESTION: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

EVENTS_INGESTED: Final = Counter(
    "billing.events.ingested",
    "Events by what became of them",
    labels=(Label("outcome", tuple(OUTCOME_NAMES.values())), _TRANSPORT),
)
INGESTION_DURATION: Final = Histogram(
    "billing.event.ingestion.duration",
    "Time to take a batch of events in, durably",
    unit="s",
    labels=(_TRANSPORT,),
    boundaries=_INGESTION,
    alerts=(1,),
)
EVENT_LAG: Final = Histogram(
    "billing.event.lag",
    "Time from an event to its being billable",
    unit="s",
    # From live traffic to a backfill of months.
    boundaries=(0.1, 0.25, 0.5, 1, 5, 30, 300, 3_600, 86_400, 2_592_000),
    alerts=(1, 5, 30, 300),
)
EVENT_CORRECTIONS: Final = Counter(
    "billing.event.corrections",
    "Events that were amended or cancelled, in periods that were open or closed",
    labels=(Label("kind", tuple(kind.lower() for kind in Kind)), Label("period", ("open", "closed"))),
)
CALLS_PROCESSED: Final = Counter(
    "billing.cdr.processed",
    "Call records by what became of them, type and country called",
    labels=(_STATUS, Label("call_type"), Label("destination")),
)
CALLS_DURATION: Final = Histogram(
    "billing.cdr.processing.duration",
    "Time to take a batch of call records in, durably",
    unit="s",
    labels=(_STATUS,),
    boundaries=_INGESTION,
    alerts=(1, 5),
)

USAGE_INCREMENT: Final = Counter(
    "billing.usage.increment", "Usage added to the totals, in the meter's unit", labels=(_CUSTOMER, _METER)
)
USAGE_INCREMENT_ERRORS: Final = Counter(
    "billing.usage.increment.errors",
    "Turns of the rollup that failed and were repeated, by whose usage waits for them; `all` where that is not known",
    labels=(_CUSTOMER, _METER, Label("error_type", (UNAVAILABLE, DATA, INTERNAL))),
)
ROLLUP_DURATION: Final = Histogram(
    "billing.rollup.duration",
    "Duration of the turns of the rollup",
    unit="s",
    boundaries=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5),
    alerts=(1,),
)
ROLLUP_LAG: Final = Gauge("billing.rollup.lag", "Age of the newest complete totals", unit="s")
OLDEST_SNAPSHOT: Final = Gauge(
    "billing.rollup.oldest_snapshot", "Age of the oldest snapshot of the database server", unit="s"
)
HELD_BACK: Final = Gauge(
    "billing.rollup.held_back",
    "Age of transactions of others that hold the rollup back",
    unit="s",
    labels=(Label("database"), Label("application")),
)
TOTALS_DRIFT: Final = Gauge(
    "billing.integrity.totals_drift",
    "Quarters of an hour whose totals are not what a recount of their events gives",
)

USAGE_PERCENTAGE: Final = Gauge(
    "billing.usage.percentage", "Used share of limits in percent, 0 to 100 and above", labels=(_CUSTOMER, _LIMIT)
)
USING_DEFAULTS: Final = Gauge(
    "billing.tenant.using_defaults",
    "1 for customers without a plan, to whom the default limits apply, 0 for others",
    labels=(_CUSTOMER,),
)
LIMIT_EXCEEDED: Final = Counter(
    "billing.limit.exceeded", "Limit checks and reservations that were refused", labels=(_CUSTOMER, _LIMIT)
)
LIMIT_CHECKS: Final = Counter(
    "billing.limit.checks",
    "Limit checks by where the answer came from",
    labels=(Label("answered_from", ("live", "database")),),
)

REDIS_DURATION: Final = Histogram(
    "billing.redis.operation.duration",
    "Duration of commands to Redis",
    unit="s",
    labels=(Label("operation", ("hget", "hset", "del", "info", "scan")),),
    boundaries=(0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1),
    alerts=(0.1,),
)
REDIS_MEMORY: Final = Gauge("billing.redis.memory", "Memory that Redis uses", unit="By")
REDIS_USAGE_KEYS: Final = Gauge("billing.redis.usage_keys_total", "Keys of usage in Redis")
REDIS_CONNECTIONS: Final = Gauge("billing.redis.connections_active", "Connections that Redis has open")

PERIODS_PRICED: Final = Counter("billing.usage.priced", "Periods of customers that were priced by day")
PRICING_FAILURES: Final = Counter("billing.usage.pricing.failures", "Times that billing gave no prices")
REPORT_DURATION: Final = Histogram(
    "billing.usage.report.duration",
    "Time to make a usage report",
    unit="s",
    labels=(Label("made_by", ("call", "job")),),
    boundaries=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
)
ANOMALIES: Final = Counter(
    "billing.usage.anomalies", "Anomalies that were found", labels=(Label("kind", ("spike", "drop")),)
)
WINDOWS_JUDGED: Final = Counter("billing.usage.windows.judged", "Windows of customers' meters that were judged")


class IngestMetrics:
    """What comes in."""

    def __init__(self, meter: Meter) -> None:
        self._events = EVENTS_INGESTED.build(meter)
        self._duration = INGESTION_DURATION.build(meter)

    def took(self, counts: Sequence[tuple[Outcome, int]], seconds: float) -> None:
        """Record a batch of the call that is under way: how many events had which outcome, and how long it took."""
        given = interceptors.transport.get()
        transport = given if given in TRANSPORTS else GRPC
        for outcome, count in counts:
            if count:
                self._events.add(count, {"outcome": OUTCOME_NAMES[outcome], "transport": transport})
        self._duration.record(seconds, {"transport": transport})


class CorrectionMetrics:
    """What is corrected."""

    def __init__(self, meter: Meter) -> None:
        self._corrections = EVENT_CORRECTIONS.build(meter)

    def corrected(self, kind: Kind, *, is_adjustment: bool) -> None:
        """Count a correction; one of a closed period is an adjustment."""
        self._corrections.add(1, {"kind": kind.lower(), "period": "closed" if is_adjustment else "open"})


class CallMetrics:
    """What becomes of call records."""

    def __init__(self, meter: Meter) -> None:
        self._processed = CALLS_PROCESSED.build(meter, {"call_type": "unknown", "destination": "unknown"})
        self._duration = CALLS_DURATION.build(meter)

    def processed(self, counts: Mapping[tuple[str, str, str], int]) -> None:
        """Count records by status (success, failed), call type and country."""
        for (status, call_type, destination), count in counts.items():
            self._processed.add(count, {"status": status, "call_type": call_type, "destination": destination})

    def took(self, seconds: float, *, stored: bool) -> None:
        """Record a batch: how long it took, and whether it was stored."""
        self._duration.record(seconds, {"status": "success" if stored else "failed"})


class RedisMetrics:
    """What Redis takes."""

    def __init__(self, meter: Meter) -> None:
        self._duration = REDIS_DURATION.build(meter)

    def took(self, operation: str, seconds: float) -> None:
        """Record a command."""
        self._duration.record(seconds, {"operation": operation})


@dataclass(frozen=True)
class Server:
    """What Redis says of itself: memory in bytes, connections of clients, and how many keys are of usage."""

    memory: int
    connections: int
    usage_keys: int


@dataclass(frozen=True)
class Share:
    """How much of a limit is used, in percent."""

    customer_id: str
    meter_id: str
    percent: float


class Bounded:
    """Names of customers in labels: those that come first have their own, the others are `other`."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._names: set[str] = set()

    def label(self, customer_id: str) -> str:
        """Return what a customer is called in a label."""
        if customer_id not in self._names:
            if len(self._names) >= self._most:
                return OTHER
            self._names.add(customer_id)
        return customer_id


class LimitMetrics:
    """What limits refuse."""

    def __init__(self, meter: Meter, *, most_customers: int) -> None:
        """Make the instruments.

        Args:
            meter: where.
            most_customers: customers with a label of their own; the others are counted as `other`.
        """
        self._bounded = Bounded(most_customers)
        self._exceeded = LIMIT_EXCEEDED.build(meter)
        self._answered = LIMIT_CHECKS.build(meter)

    def answered(self, source: str) -> None:
        """Count a check; `source` is live or database."""
        self._answered.add(1, {"answered_from": source})

    def exceeded(self, customer_id: str, meter_id: str) -> None:
        """Count a check or a reservation that was refused."""
        self._exceeded.add(1, {CUSTOMER: self._bounded.label(customer_id), "limit_type": meter_id})


@dataclass
class LimitState:
    """What the process that looks after limits has read; nothing in the others, which then report nothing.

    `without_plan` says of customers whether they have no plan, so that the defaults apply. `is_held` says whether that
    process holds the lease now: it may have lost it since it read.
    """

    is_held: Callable[[], bool] = lambda: True
    shares: Sequence[Share] = ()
    without_plan: Sequence[tuple[str, bool]] = ()
    server: Server | None = None


class LimitGauges:
    """The state of limits and of Redis."""

    def __init__(self, meter: Meter, state: LimitState) -> None:
        """Make the instruments. `state` is read at each export."""
        self._state = state
        USAGE_PERCENTAGE.observe(meter, self._shares)
        USING_DEFAULTS.observe(meter, self._without_plan)
        REDIS_MEMORY.observe(meter, self._memory)
        REDIS_USAGE_KEYS.observe(meter, self._usage_keys)
        REDIS_CONNECTIONS.observe(meter, self._connections)

    def _shares(self) -> Iterable[Observation]:
        for share in self._state.shares if self._state.is_held() else ():
            yield Observation(share.percent, {CUSTOMER: share.customer_id, "limit_type": share.meter_id})

    def _without_plan(self) -> Iterable[Observation]:
        for customer_id, is_without in self._state.without_plan if self._state.is_held() else ():
            yield Observation(int(is_without), {CUSTOMER: customer_id})

    def _memory(self) -> Iterable[Observation]:
        for server in self._servers():
            yield Observation(server.memory)

    def _usage_keys(self) -> Iterable[Observation]:
        for server in self._servers():
            yield Observation(server.usage_keys)

    def _connections(self) -> Iterable[Observation]:
        for server in self._servers():
            yield Observation(server.connections)

    def _servers(self) -> tuple[Server, ...]:
        return () if self._state.server is None or not self._state.is_held() else (self._state.server,)


@dataclass(frozen=True)
class Holder:
    """A transaction of another application that holds the rollup back."""

    database: str
    application: str
    seconds: float


@dataclass
class RollupState:
    """What the process that rolls up knows; None in all others, which then report nothing.

    `as_of` is up to when totals are complete: what has been acknowledged before it is in them.
    """

    as_of: datetime | None = None
    snapshot_age: float | None = None
    holders: Sequence[Holder] = ()


@dataclass
class DriftState:
    """What the process that checks for drift knows: quarters of an hour whose totals differ; None in all others."""

    quarters: int | None = None


class DriftMetrics:
    """Whether totals are what their events give."""

    def __init__(self, meter: Meter, state: DriftState) -> None:
        """Make the instrument; `state` is read at each export."""
        self._state = state
        TOTALS_DRIFT.observe(meter, self._quarters)

    def _quarters(self) -> Iterable[Observation]:
        if self._state.quarters is not None:
            yield Observation(self._state.quarters)


class RollupMetrics:
    """What the rollup does."""

    def __init__(self, meter: Meter, state: RollupState, *, most_customers: int) -> None:
        """Make the instruments.

        Args:
            meter: where.
            state: read at each export.
            most_customers: customers with a label of their own; the others are counted as `other`.
        """
        self._state = state
        self._bounded = Bounded(most_customers)
        self._increment = USAGE_INCREMENT.build(meter)
        self._errors = USAGE_INCREMENT_ERRORS.build(meter, {CUSTOMER: ALL, "metric_type": ALL})
        self._lag = EVENT_LAG.build(meter)
        self._duration = ROLLUP_DURATION.build(meter)
        ROLLUP_LAG.observe(meter, self._rollup_lag)
        OLDEST_SNAPSHOT.observe(meter, self._snapshot_age)
        HELD_BACK.observe(meter, self._holders)

    def added(self, customer_id: str, meter_id: str, amount: float) -> None:
        """Count usage that came into the totals."""
        self._increment.add(amount, {CUSTOMER: self._bounded.label(customer_id), "metric_type": meter_id})

    def failed(self, error_type: str, waiting: Sequence[tuple[str, str]] = ()) -> None:
        """Count a turn that failed: nobody's usage is lost, and the next turn takes it in.

        Args:
            error_type: unavailable, data or internal.
            waiting: whose usage waits, as (customer, meter); none where that is not known.
        """
        for customer_id, meter_id in {(self._bounded.label(customer), meter) for customer, meter in waiting}:
            self._errors.add(1, {CUSTOMER: customer_id, "metric_type": meter_id, "error_type": error_type})
        if not waiting:
            self._errors.add(1, {CUSTOMER: ALL, "metric_type": ALL, "error_type": error_type})

    def turned(self, seconds: float, event_age: float | None) -> None:
        """Record a turn: how long it took, and how old the newest events were (None without any)."""
        self._duration.record(seconds)
        if event_age is not None:
            self._lag.record(event_age)

    def _rollup_lag(self) -> Iterable[Observation]:
        if self._state.as_of is not None:
            yield Observation((datetime.now(UTC) - self._state.as_of).total_seconds())

    def _snapshot_age(self) -> Iterable[Observation]:
        if self._state.snapshot_age is not None:
            yield Observation(self._state.snapshot_age)

    def _holders(self) -> Iterable[Observation]:
        for holder in self._state.holders:
            yield Observation(holder.seconds, {"database": holder.database, "application": holder.application})


class CostMetrics:
    """What pricing does."""

    def __init__(self, meter: Meter) -> None:
        self._priced = PERIODS_PRICED.build(meter)
        self._failures = PRICING_FAILURES.build(meter)

    def priced(self, periods: int) -> None:
        """Count periods."""
        self._priced.add(periods)

    def failed(self) -> None:
        """Count an answer that did not come."""
        self._failures.add(1)


class ReportMetrics:
    """What reports take."""

    def __init__(self, meter: Meter) -> None:
        self._duration = REPORT_DURATION.build(meter)

    def made(self, by: str, seconds: float) -> None:
        """Record a report; `by` is call or job."""
        self._duration.record(seconds, {"made_by": by})


class AnomalyMetrics:
    """What the search for anomalies does."""

    def __init__(self, meter: Meter) -> None:
        self._found = ANOMALIES.build(meter)
        self._judged = WINDOWS_JUDGED.build(meter)

    def found(self, kind: str) -> None:
        """Count an anomaly that was not known; `kind` is spike or drop."""
        self._found.add(1, {"kind": kind})

    def judged(self, windows: int) -> None:
        """Count windows."""
        self._judged.add(windows)
