"""A meter's totals of a customer over a stretch of time, cut wherever totals can be cut."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

import sqlalchemy as sa

from services.usage.domain.limit import Period
from services.usage.domain.meter import State
from services.usage.store import totals
from services.usage.store.meters import StoredMeter
from services.usage.store.totals import Bucket


@dataclass(frozen=True)
class History:
    """Buckets in order."""

    meter: StoredMeter
    buckets: Sequence[Bucket]

    def value(self, start: datetime, end: datetime) -> Decimal:
        """Return the meter's value over the buckets that begin in `[start, end)`."""
        return self._merged(self.buckets[self._at(start) : self._at(end)])

    def has_usage(self, start: datetime, end: datetime) -> bool:
        """Say whether there is a bucket that begins in `[start, end)`."""
        return self._at(start) < self._at(end)

    def running(self, period: Period) -> Iterator[tuple[datetime, Decimal]]:
        """Yield each bucket's first instant, with the value of the period through it."""
        state = State.empty()
        for bucket in self.buckets[self._at(period.start) : self._at(period.end)]:
            state += bucket.state
            yield bucket.start, state.value(self.meter.meter.aggregation)

    def _merged(self, buckets: Sequence[Bucket]) -> Decimal:
        state = State.empty()
        for bucket in buckets:
            state += bucket.state
        return state.value(self.meter.meter.aggregation)

    def _at(self, instant: datetime) -> int:
        return bisect_left(self.buckets, instant, key=lambda bucket: bucket.start)


def read(conn: sa.Connection, customer: int, meter: StoredMeter, period: Period) -> History:
    """Return what is known of a period."""
    return History(meter, totals.buckets(conn, customer, meter.number, period.start, period.end))
