"""The instruments of usage, declared once. Names and labels: the telemetry catalogue."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from opentelemetry.metrics import CallbackOptions, Meter, Observation

from services.usage.domain.correction import Kind
from services.usage.domain.verdict import Outcome

TRANSPORT: Final = "grpc"

# 1 is the bound of the latency alert.
_INGESTION: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
# From live traffic to a backfill of months.
_LAG: Final = (0.1, 0.25, 0.5, 1, 5, 30, 300, 3_600, 86_400, 2_592_000)
_REDIS: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1)
_ROLLUP: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)


class IngestMetrics:
    """What comes in."""

    def __init__(self, meter: Meter) -> None:
        """Declare the instruments; each outcome starts at 0, so that `rate` sees the first."""
        self._events = meter.create_counter("billing.events.ingested", description="Events by what became of them")
        self._duration = meter.create_histogram(
            "billing.event.ingestion.duration",
            unit="s",
            description="Time to take a batch of events in, durably",
            explicit_bucket_boundaries_advisory=_INGESTION,
        )
        for outcome in Outcome:
            self._events.add(0, {"outcome": outcome.name.lower(), "transport": TRANSPORT})

    def took(self, counts: Sequence[tuple[Outcome, int]], seconds: float) -> None:
        """Record a batch: how many events had which outcome, and how long it took."""
        for outcome, count in counts:
            if count:
                self._events.add(count, {"outcome": outcome.name.lower(), "transport": TRANSPORT})
        self._duration.record(seconds, {"transport": TRANSPORT})


class CorrectionMetrics:
    """What is corrected."""

    def __init__(self, meter: Meter) -> None:
        """Declare the instrument; each kind starts at 0."""
        self._corrections = meter.create_counter(
            "billing.event.corrections", description="Events that were amended or cancelled"
        )
        for kind in Kind:
            for is_adjustment in (False, True):
                self._corrections.add(0, _labels(kind, is_adjustment=is_adjustment))

    def corrected(self, kind: Kind, *, is_adjustment: bool) -> None:
        """Count a correction; one of a closed period is an adjustment."""
        self._corrections.add(1, _labels(kind, is_adjustment=is_adjustment))


def _labels(kind: Kind, *, is_adjustment: bool) -> dict[str, str]:
    return {"kind": kind.lower(), "period": "closed" if is_adjustment else "open"}


class CallMetrics:
    """What becomes of call records."""

    def __init__(self, meter: Meter) -> None:
        """Declare the instruments; failures start at 0, so that `rate` sees the first."""
        self._processed = meter.create_counter(
            "billing.cdr.processed", description="Call records by what became of them, type and country called"
        )
        self._duration = meter.create_histogram(
            "billing.cdr.processing.duration",
            unit="s",
            description="Time to take a batch of call records in, durably",
            explicit_bucket_boundaries_advisory=_INGESTION,
        )
        for status in ("success", "failed"):
            self._processed.add(0, {"status": status, "call_type": "unknown", "destination": "unknown"})

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
        """Declare the instrument."""
        self._duration = meter.create_histogram(
            "billing.redis.operation.duration",
            unit="s",
            description="Duration of commands to Redis",
            explicit_bucket_boundaries_advisory=_REDIS,
        )

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
                return "other"
            self._names.add(customer_id)
        return customer_id


class LimitMetrics:
    """What limits refuse."""

    def __init__(self, meter: Meter, *, most_customers: int) -> None:
        """Declare the instruments; each source starts at 0.

        Args:
            meter: where.
            most_customers: customers with a label of their own; the others are counted as `other`.
        """
        self._bounded = Bounded(most_customers)
        self._exceeded = meter.create_counter(
            "billing.limit.exceeded", description="Limit checks and reservations that were refused"
        )
        self._answered = meter.create_counter(
            "billing.limit.checks", description="Limit checks by where the answer came from"
        )
        for source in ("live", "database"):
            self._answered.add(0, {"answered_from": source})

    def answered(self, source: str) -> None:
        """Count a check; `source` is live or database."""
        self._answered.add(1, {"answered_from": source})

    def exceeded(self, customer_id: str, meter_id: str) -> None:
        """Count a check or a reservation that was refused."""
        self._exceeded.add(1, {"customer_id": self._bounded.label(customer_id), "limit_type": meter_id})


@dataclass
class LimitState:
    """What the process that looks after limits has read; nothing in the others, which then report nothing.

    `without_plan` says of customers whether they have no plan, so that the defaults apply.
    """

    shares: Sequence[Share] = ()
    without_plan: Sequence[tuple[str, bool]] = ()
    server: Server | None = None


class LimitGauges:
    """The state of limits and of Redis."""

    def __init__(self, meter: Meter, state: LimitState) -> None:
        """Declare the instruments. `state` is read at each export."""
        self._state = state
        for name, unit, observe, description in (
            # No unit where Prometheus would append it to the name.
            ("billing.usage.percentage", "", self._shares, "Used share of limits in percent"),
            ("billing.tenant.using_defaults", "", self._without_plan, "1 for customers without a plan, 0 for others"),
            ("billing.redis.memory", "By", self._memory, "Memory that Redis uses"),
            ("billing.redis.usage_keys_total", "", self._usage_keys, "Keys of usage in Redis"),
            ("billing.redis.connections_active", "", self._connections, "Connections that Redis has open"),
        ):
            meter.create_observable_gauge(name, callbacks=[observe], unit=unit, description=description)

    def _shares(self, _options: CallbackOptions) -> Iterable[Observation]:
        for share in self._state.shares:
            yield Observation(share.percent, {"customer_id": share.customer_id, "limit_type": share.meter_id})

    def _without_plan(self, _options: CallbackOptions) -> Iterable[Observation]:
        for customer_id, is_without in self._state.without_plan:
            yield Observation(int(is_without), {"customer_id": customer_id})

    def _memory(self, _options: CallbackOptions) -> Iterable[Observation]:
        if self._state.server is not None:
            yield Observation(self._state.server.memory)

    def _usage_keys(self, _options: CallbackOptions) -> Iterable[Observation]:
        if self._state.server is not None:
            yield Observation(self._state.server.usage_keys)

    def _connections(self, _options: CallbackOptions) -> Iterable[Observation]:
        if self._state.server is not None:
            yield Observation(self._state.server.connections)


@dataclass(frozen=True)
class Holder:
    """A transaction of another application that holds the rollup back."""

    database: str
    application: str
    seconds: float


@dataclass
class RollupState:
    """What the process that rolls up knows; None where no process of ours does, which then reports nothing."""

    lag: float | None = None
    snapshot_age: float | None = None
    holders: Sequence[Holder] = ()


@dataclass
class DriftState:
    """What the process that checks for drift knows: quarters of an hour whose totals differ; None in all others."""

    quarters: int | None = None


class DriftMetrics:
    """Whether totals are what their events give."""

    def __init__(self, meter: Meter, state: DriftState) -> None:
        """Declare the instrument; `state` is read at each export."""
        self._state = state
        meter.create_observable_gauge(
            "billing.integrity.totals_drift",
            callbacks=[self._quarters],
            description="Quarters of an hour whose totals are not what a recount of their events gives",
        )

    def _quarters(self, _options: CallbackOptions) -> Iterable[Observation]:
        if self._state.quarters is not None:
            yield Observation(self._state.quarters)


class RollupMetrics:
    """What the rollup does."""

    def __init__(self, meter: Meter, state: RollupState, *, most_customers: int) -> None:
        """Declare the instruments.

        Args:
            meter: where.
            state: read at each export.
            most_customers: customers with a label of their own; the others are counted as `other`.
        """
        self._state = state
        self._bounded = Bounded(most_customers)
        self._increment = meter.create_counter("billing.usage.increment", description="Usage added to the totals")
        self._errors = meter.create_counter(
            "billing.usage.increment.errors", description="Turns of the rollup that failed and were repeated"
        )
        self._lag = meter.create_histogram(
            "billing.event.lag",
            unit="s",
            description="Time from an event to its being billable",
            explicit_bucket_boundaries_advisory=_LAG,
        )
        self._duration = meter.create_histogram(
            "billing.rollup.duration",
            unit="s",
            description="Duration of the turns of the rollup",
            explicit_bucket_boundaries_advisory=_ROLLUP,
        )
        for name, unit, observe, description in (
            ("billing.rollup.lag", "s", self._rollup_lag, "Age of the newest complete totals"),
            ("billing.rollup.oldest_snapshot", "s", self._snapshot_age, "Age of the oldest snapshot of the server"),
            ("billing.rollup.held_back", "s", self._holders, "Age of foreign transactions that hold the rollup"),
        ):
            meter.create_observable_gauge(name, callbacks=[observe], unit=unit, description=description)

    def added(self, customer_id: str, meter_id: str, amount: float) -> None:
        """Count usage that came into the totals."""
        self._increment.add(amount, {"customer_id": self._bounded.label(customer_id), "metric_type": meter_id})

    def failed(self, error_type: str) -> None:
        """Count a turn that failed: nobody's usage is lost, and the next turn takes it in."""
        self._errors.add(1, {"customer_id": "", "metric_type": "", "error_type": error_type})

    def turned(self, seconds: float, event_age: float | None) -> None:
        """Record a turn: how long it took, and how old the newest events were (None without any)."""
        self._duration.record(seconds)
        if event_age is not None:
            self._lag.record(event_age)

    def _rollup_lag(self, _options: CallbackOptions) -> Iterable[Observation]:
        if self._state.lag is not None:
            yield Observation(self._state.lag)

    def _snapshot_age(self, _options: CallbackOptions) -> Iterable[Observation]:
        if self._state.snapshot_age is not None:
            yield Observation(self._state.snapshot_age)

    def _holders(self, _options: CallbackOptions) -> Iterable[Observation]:
        for holder in self._state.holders:
            yield Observation(holder.seconds, {"database": holder.database, "application": holder.application})


_REPORT: Final = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class CostMetrics:
    """What pricing does."""

    def __init__(self, meter: Meter) -> None:
        """Declare the instruments; both start at 0."""
        self._priced = meter.create_counter(
            "billing.usage.priced", description="Periods of customers that were priced by day"
        )
        self._failures = meter.create_counter(
            "billing.usage.pricing.failures", description="Times that billing gave no prices"
        )
        self._priced.add(0)
        self._failures.add(0)

    def priced(self, periods: int) -> None:
        """Count periods."""
        self._priced.add(periods)

    def failed(self) -> None:
        """Count an answer that did not come."""
        self._failures.add(1)


class ReportMetrics:
    """What reports take."""

    def __init__(self, meter: Meter) -> None:
        """Declare the instrument."""
        self._duration = meter.create_histogram(
            "billing.usage.report.duration",
            unit="s",
            description="Time to make a usage report",
            explicit_bucket_boundaries_advisory=_REPORT,
        )

    def made(self, by: str, seconds: float) -> None:
        """Record a report; `by` is call or job."""
        self._duration.record(seconds, {"made_by": by})


class AnomalyMetrics:
    """What the search for anomalies does."""

    def __init__(self, meter: Meter) -> None:
        """Declare the instruments; each kind starts at 0."""
        self._found = meter.create_counter("billing.usage.anomalies", description="Anomalies that were found")
        self._judged = meter.create_counter(
            "billing.usage.windows.judged", description="Windows of customers' meters that were judged"
        )
        for kind in ("spike", "drop"):
            self._found.add(0, {"kind": kind})
        self._judged.add(0)

    def found(self, kind: str) -> None:
        """Count an anomaly that was not known; `kind` is spike or drop."""
        self._found.add(1, {"kind": kind})

    def judged(self, windows: int) -> None:
        """Count windows."""
        self._judged.add(windows)
