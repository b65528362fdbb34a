"""Days of a zone, and the same time of day on another day."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from services.usage.domain.window import Window, bounds


@dataclass(frozen=True)
class Day:
    """A day, or the part of it that a range leaves: `[start, end)`, UTC."""

    date: date
    start: datetime
    end: datetime


def days(start: datetime, end: datetime, zone: ZoneInfo) -> list[Day]:
    """Return the days of a zone that `[start, end)` touches, the first and the last cut by it."""
    found = []
    while start < end:
        behind = min(bounds(Window.DAY, start, zone)[1], end)
        found.append(Day(start.astimezone(zone).date(), start, behind))
        start = behind
    return found


def day_of(listed: Sequence[Day], instant: datetime) -> int:
    """Return the place of the day, in a list without gaps, that an instant within it is in."""
    return bisect_right(listed, instant, key=lambda day: day.start) - 1


def days_earlier(instant: datetime, count: int, zone: ZoneInfo) -> datetime:
    """Return the instant of the same time of day so many days before.

    A time of day that a clock change skips counts with the offset before the change, one that occurs twice means the
    same of both as the instant does.
    """
    local = instant.astimezone(zone)
    return (local.replace(tzinfo=None) - timedelta(days=count)).replace(tzinfo=zone, fold=local.fold).astimezone(UTC)
