"""Billing periods: half-open UTC intervals computed from a local anchor, never from a stored offset."""

import calendar
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

_MONTHS = 12


@dataclass(frozen=True)
class Period:
    """The instants from `start` up to, but not including, `end`, both UTC."""

    start: datetime
    end: datetime


@dataclass(frozen=True)
class Schedule:
    """The monthly periods of a subscription.

    Each begins at the anchor's local day and time of day; where a month lacks that day, on its last day. The anchor's
    day is remembered: 31 January is followed by 28 February and then by 31 March. A local time that a clock change
    skips counts with the offset before the change, one that occurs twice means the first (RFC 5545, 3.3.5).

    Attributes:
        anchor: the first instant of period 0, UTC.
        time_zone: IANA name.
    """

    anchor: datetime
    time_zone: str

    def start_of(self, number: int) -> datetime:
        """Return the first instant of period `number`, counted from 0."""
        if number == 0:
            return self.anchor
        zone = ZoneInfo(self.time_zone)
        local = self.anchor.astimezone(zone)
        months = local.month - 1 + number
        year, month = local.year + months // _MONTHS, months % _MONTHS + 1
        day = min(local.day, calendar.monthrange(year, month)[1])
        return local.replace(year=year, month=month, day=day, fold=0).astimezone(UTC)

    def period(self, number: int) -> Period:
        """Return period `number`, counted from 0."""
        return Period(self.start_of(number), self.start_of(number + 1))

    def ended(self, first: int, by: datetime) -> Iterator[tuple[int, Period]]:
        """Yield the periods from number `first` on that ended at or before `by`."""
        number, period = first, self.period(first)
        while period.end <= by:
            yield number, period
            number += 1
            period = self.period(number)

    def around(self, now: datetime, ahead: int) -> list[Period]:
        """Return the periods from the first one to `ahead` periods behind the one that contains `now`."""
        past = sum(1 for _ in self.ended(0, now))
        return [self.period(number) for number in range(past + 1 + ahead)]
