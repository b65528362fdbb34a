"""How much was used, in windows, with one's own writes in it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from services.kit.db import Database
from services.kit.errors import InvalidArgument
from services.usage.domain.instant import quarter
from services.usage.domain.meter import State
from services.usage.domain.window import Window, bounds, time_zone
from services.usage.store import places, totals
from services.usage.store.meters import StoredMeter
from services.usage.store.totals import Bucket
from services.usage.usecases.catalogue import Catalogue
from services.usage.usecases.positions import Positions

_WAIT_SECONDS: Final = 2.0
_LONGEST: Final = timedelta(days=3660)


@dataclass(frozen=True)
class UsageWindow:
    """Usage of `[start, end)`."""

    start: datetime
    end: datetime
    state: State


@dataclass(frozen=True)
class Usage:
    """Usage in windows; every event acknowledged before `as_of` is counted."""

    meter: StoredMeter
    windows: list[UsageWindow]
    total: State
    as_of: datetime


@dataclass(frozen=True)
class Question:
    """What is asked: a meter of a customer in `[start, end)`. An empty zone is the customer's own."""

    customer_id: str
    meter: str
    start: datetime
    end: datetime
    window: Window
    zone: str


class Queries:
    """Answers questions."""

    def __init__(
        self, database: Database, catalogue: Catalogue, positions: Positions, clock: Callable[[], datetime]
    ) -> None:
        self._database = database
        self._catalogue = catalogue
        self._positions = positions
        self._clock = clock

    def usage(self, question: Question) -> Usage:
        """Return usage, complete up to this call unless the rollup is more than 2 s behind.

        Raises:
            CustomerNotFound, MeterNotFound: there is none of this id.
            InvalidArgument: a range that is none, too long or not in quarters of an hour; an unknown time zone.
        """
        _check_range(question.start, question.end)
        customer = self._catalogue.customer(question.customer_id)
        meter = self._catalogue.meter(question.meter)
        zone = time_zone(question.zone or customer.time_zone, "time_zone")
        asked_at = self._clock()
        with self._database.autocommit() as conn:
            generation = places.rollup(conn).generation
            beyond = places.behind_all(conn)
        complete = self._positions.wait(generation, beyond, _WAIT_SECONDS)
        with self._database.autocommit() as conn:
            # The place first: the totals that are read after it can only be newer.
            as_of = places.rollup(conn).as_of
            found = totals.buckets(conn, customer.number, meter.number, question.start, question.end)
        return Usage(
            meter=meter,
            windows=list(_windows(found, question, zone)),
            total=_merged(bucket.state for bucket in found),
            as_of=max(as_of, asked_at) if complete else as_of,
        )


def _check_range(start: datetime, end: datetime) -> None:
    for field, instant in (("start_time", start), ("end_time", end)):
        if quarter(instant) != instant:
            raise InvalidArgument.at(field, f"{instant.isoformat()} is not a whole quarter of an hour (UTC)")
    if start >= end:
        raise InvalidArgument.at("end_time", "is not after start_time")
    if end - start > _LONGEST:
        raise InvalidArgument.at("end_time", f"is more than {_LONGEST.days} days after start_time")


def _windows(found: Iterable[Bucket], question: Question, zone: ZoneInfo) -> Iterable[UsageWindow]:
    """Cut buckets into windows, those at the ends cut by the range."""
    start, end = question.start, question.start
    states: list[State] = []
    for bucket in found:
        if bucket.start >= end:
            if states:
                yield UsageWindow(start, end, _merged(states))
            start, end = _bounds(question, bucket.start, zone)
            states = []
        states.append(bucket.state)
    if states:
        yield UsageWindow(start, end, _merged(states))


def _bounds(question: Question, instant: datetime, zone: ZoneInfo) -> tuple[datetime, datetime]:
    if question.window is Window.WHOLE:
        return question.start, question.end
    start, end = bounds(question.window, instant, zone)
    return max(start, question.start), min(end, question.end)


def _merged(states: Iterable[State]) -> State:
    merged = State.empty()
    for state in states:
        merged += state
    return merged
