"""Windows of usage: quarters of an hour in UTC, hours, days and months of any IANA time zone."""

from datetime import UTC, date, datetime, timedelta
from enum import Enum, auto
from typing import Final
from zoneinfo import ZoneInfo

from services.kit.errors import InvalidArgument
from services.kit.time_zones import is_time_zone
from services.usage.domain.instant import QUARTER, quarter

_HOUR: Final = timedelta(hours=1)


class Window(Enum):
    """How usage is cut. WHOLE is one window over the range; BILLING_PERIOD is the customer's, not the zone's."""

    WHOLE = auto()
    QUARTER_HOUR = auto()
    HOUR = auto()
    DAY = auto()
    MONTH = auto()
    BILLING_PERIOD = auto()


def time_zone(name: str, field: str) -> ZoneInfo:
    """Return a time zone by its IANA name.

    Raises:
        InvalidArgument: there is none of this name.
    """
    if not is_time_zone(name):
        raise InvalidArgument.at(
            field, f"{name[:64]!r} is no IANA time zone; use a name such as Asia/Kolkata", reason="UNKNOWN_TIME_ZONE"
        )
    return ZoneInfo(name)


def bounds(window: Window, instant: datetime, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """Return the window `[start, end)` in UTC that holds an instant (not for WHOLE and BILLING_PERIOD).

    Local hours, days and months are cut where the zone's clock says so: a day with a change of clocks has 23 or 25
    hours, and an hour that the clock repeats is two windows.
    """
    if window is Window.QUARTER_HOUR:
        start = quarter(instant)
        return start, start + QUARTER
    local = instant.astimezone(zone)
    if window is Window.HOUR:
        into = timedelta(minutes=local.minute, seconds=local.second, microseconds=local.microsecond)
        start = instant - into
        return start, start + _HOUR
    day = local.date() if window is Window.DAY else local.date().replace(day=1)
    start, end = _midnight(day, zone), _midnight(_next(window, day), zone)
    if instant >= end:
        # The clock was put back over midnight (St. John's, until 2011): what has begun does not begin again.
        day = _next(window, day)
        start, end = end, _midnight(_next(window, day), zone)
    return start, end


def cuts(window: Window, start: datetime, end: datetime, zone: ZoneInfo, *, most: int) -> list[datetime] | None:
    """Return where windows begin in `[start, end)`, with `start` and `end` themselves, ascending (not for BILLING_PERIOD).

    None if there are more than `most` windows. Where a zone's clock moves by other than whole hours, the window before
    is cut short by the one that begins then.
    """
    found = [start]
    while window is not Window.WHOLE:
        following = bounds(window, found[-1], zone)[1]
        if following >= end:
            break
        found.append(following.astimezone(UTC))
        if len(found) > most:
            return None
    return [*found, end]


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    """Return the first instant of a day.

    The first of two where the clock shows midnight twice (Havana, Azores); where it leaves midnight out (Beirut, Cairo),
    the moment at which it is put forward: midnight by the offset before, as no zone is put forward over midnight.
    """
    return datetime(day.year, day.month, day.day, tzinfo=zone, fold=0).astimezone(UTC)


def _next(window: Window, day: date) -> date:
    """Return the day after, or the first of the month after a first."""
    return day + timedelta(days=1) if window is Window.DAY else (day + timedelta(days=31)).replace(day=1)
