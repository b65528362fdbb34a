"""The instruments of usage, declared once. Names and labels: the telemetry catalogue."""

from collections.abc import Sequence
from typing import Final

from opentelemetry import metrics

from services.usage.domain.verdict import Outcome

TRANSPORT: Final = "grpc"

# 1 is the bound of the latency alert.
_INGESTION: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
# From live traffic to a backfill of months.
_LAG: Final = (0.1, 0.25, 0.5, 1, 5, 30, 300, 3_600, 86_400, 2_592_000)
_REDIS: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1)


class IngestMetrics:
    """What comes in."""

    def __init__(self) -> None:
        """Declare the instruments; each outcome starts at 0, so that `rate` sees the first."""
        meter = metrics.get_meter("services.usage")
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
