"""What usage answers when a period is closed."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from services.billing.domain.pricing import total


@dataclass(frozen=True)
class MeterTotal:
    """A meter's total over a period.

    Attributes:
        meter: the meter's id.
        value: the quantity.
        event_count: how many events made it.
        sample_trace_ids: traces of some of these events.
        unit: for people; may be empty.
    """

    meter: str
    value: Decimal = Decimal(0)
    event_count: int = 0
    sample_trace_ids: tuple[str, ...] = ()
    unit: str = ""

    def __add__(self, other: "MeterTotal") -> "MeterTotal":
        """Join the totals of two groups of a meter."""
        return MeterTotal(
            self.meter,
            total([self.value, other.value]),
            self.event_count + other.event_count,
            tuple(dict.fromkeys(self.sample_trace_ids + other.sample_trace_ids)),
            self.unit or other.unit,
        )


@dataclass(frozen=True)
class LateUsage:
    """The totals over sealed and all late usage of an earlier period, by meter."""

    period_end: datetime
    totals: dict[str, MeterTotal]


@dataclass(frozen=True)
class Seal:
    """A closed period. Its totals never change."""

    id: str
    totals: dict[str, MeterTotal]
    late_usage: tuple[LateUsage, ...]
    quarantined_events: int

    def total(self, meter: str) -> MeterTotal:
        """Return the meter's total, zero where nothing was used."""
        return self.totals.get(meter, MeterTotal(meter))
