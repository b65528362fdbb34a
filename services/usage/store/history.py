"""A meter's totals of a customer over a stretch of time, cut wherever totals can be cut."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final

import sqlalchemy as sa

from services.usage.domain.limit import Period
from services.usage.domain.meter import Aggregation, State
from services.usage.store import totals
from services.usage.store.meters import StoredMeter
from services.usage.store.totals import Bucket, Cut

_MOST_ROWS: Final = 20_000


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


def used(conn: sa.Connection, customer: int, meter: StoredMeter, cuts: Sequence[datetime]) -> dict[int, Decimal]:
    """Return a meter's values in those windows between cuts, counted from 0, that have usage.

    Args:
        conn: a connection.
        customer: the customer's number.
        meter: the meter.
        cuts: ascending, at quarters of an hour or where a period of the customer begins.
    """
    found = _windows(conn, customer, meter, cuts, ())
    return {each.number: each.value for each in found.windows} if found else {}


def values(conn: sa.Connection, customer: int, meter: StoredMeter, cuts: Sequence[datetime]) -> list[Decimal]:
    """Return a meter's values in all windows between cuts, 0 without usage; see `used`."""
    found = used(conn, customer, meter, cuts)
    return [found.get(number, Decimal(0)) for number in range(len(cuts) - 1)]


def by_group(
    conn: sa.Connection, customer: int, meter: StoredMeter, cuts: Sequence[datetime], group_by: Sequence[str]
) -> list[list[tuple[dict[str, str], Decimal]]] | None:
    """Return a meter's values in the windows between cuts by group, the largest first; None of more than 20,000."""
    found = _windows(conn, customer, meter, cuts, group_by)
    if found is None:
        return None
    listed: list[list[tuple[dict[str, str], Decimal]]] = [[] for _ in cuts[1:]]
    for each in sorted(found.windows, key=lambda each: (-each.value, sorted(each.group.items()))):
        listed[each.number].append((each.group, each.value))
    return listed


def _windows(
    conn: sa.Connection, customer: int, meter: StoredMeter, cuts: Sequence[datetime], group_by: Sequence[str]
) -> totals.Usage | None:
    cut = Cut(cuts, torn=(), group_by=group_by, wanted={})
    is_unique = meter.meter.aggregation is Aggregation.UNIQUE
    return totals.windows(conn, customer, meter.number, cut, is_unique=is_unique, most=_MOST_ROWS)


def read(conn: sa.Connection, customer: int, meter: StoredMeter, period: Period) -> History:
    """Return what is known of a period."""
    return History(meter, totals.buckets(conn, customer, meter.number, period.start, period.end))
