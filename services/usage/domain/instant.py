"""Instants: microseconds since 1970 (UTC) where they are many, aware datetimes elsewhere; both cut to microseconds."""

from datetime import UTC, datetime, timedelta
from typing import Final

MICROSECONDS: Final = 1_000_000
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

# What any time in a request may be. Beyond it calendars and time zones are guesses.
EARLIEST: Final = datetime(2000, 1, 1, tzinfo=UTC)
LATEST: Final = datetime(2200, 1, 1, tzinfo=UTC)

QUARTER: Final = timedelta(minutes=15)


def to_us(instant: datetime) -> int:
    """Return microseconds since 1970."""
    return (instant - EPOCH) // timedelta(microseconds=1)


def from_us(time: int) -> datetime:
    """Return the instant of microseconds since 1970."""
    return EPOCH + timedelta(microseconds=time)


def quarter(instant: datetime) -> datetime:
    """Return the quarter of an hour (UTC) that an instant is in: its first instant."""
    return instant - (instant - EPOCH) % QUARTER


EARLIEST_US: Final = to_us(EARLIEST)
