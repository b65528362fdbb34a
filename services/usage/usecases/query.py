"""How much was used, in windows, with one's own writes in it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Final
from zoneinfo import ZoneInfo

import sqlalchemy as sa

from services.kit.db import Database
from services.kit.errors import InvalidArgument
from services.usage.domain.instant import quarter
from services.usage.domain.meter import Aggregation, check_groups
from services.usage.domain.window import Window, cuts, time_zone
from services.usage.errors import RawEventsNeeded
from services.usage.store import places, totals
from services.usage.store.customers import Customer
from services.usage.store.meters import StoredMeter
from services.usage.store.totals import Cut
from services.usage.usecases.catalogue import Catalogue
from services.usage.usecases.positions import Positions

_WAIT_SECONDS: Final = 2.0
_LONGEST: Final = timedelta(days=3660)
_MOST_WINDOWS: Final = 40_000
# An answer fits into one message.
_MOST_ROWS: Final = 20_000
# Of no events: nothing was counted; the others have no value then.
_ZERO: Final = {Aggregation.COUNT, Aggregation.SUM, Aggregation.UNIQUE}


@dataclass(frozen=True)
class UsageWindow:
    """Usage of `[start, end)` in a group."""

    start: datetime
    end: datetime
    group: dict[str, str]
    value: Decimal


@dataclass(frozen=True)
class Usage:
    """Usage in windows; every event acknowledged before `as_of` is counted. `total` is None where there is no value."""

    meter: StoredMeter
    windows: list[UsageWindow]
    total: Decimal | None
    as_of: datetime


@dataclass(frozen=True)
class Question:
    """What is asked: a meter of a customer in `[start, end)`. An empty zone is the customer's own.

    `groups` has the values that groups must have.
    """

    customer_id: str
    meter: str
    start: datetime
    end: datetime
    window: Window
    zone: str
    group_by: Sequence[str] = ()
    groups: Mapping[str, str] | None = None


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
            InvalidArgument: a range that is none or too long; an unknown time zone or group; too many windows.
            RawEventsNeeded: a window is cut within a quarter of an hour whose raw events are not kept any more.
        """
        _check_range(question.start, question.end)
        customer = self._catalogue.customer(question.customer_id)
        meter = self._catalogue.meter(question.meter)
        check_groups(question.group_by, meter.meter, "group_by")
        check_groups(list(question.groups or ()), meter.meter, "group_filter")
        asked_at = self._clock()
        with self._database.autocommit() as conn:
            cut = self._cut(conn, question, customer)
        complete = self._positions.wait_for_all(_WAIT_SECONDS)
        is_unique = meter.meter.aggregation is Aggregation.UNIQUE
        with self._database.autocommit() as conn:
            # The place first: the totals that are read after it can only be newer.
            as_of = places.rollup(conn).as_of
            found = totals.windows(conn, customer.number, meter.number, cut, is_unique=is_unique, most=_MOST_ROWS)
        if found is None:
            raise InvalidArgument.at(
                "end_time",
                f"more than {_MOST_ROWS} windows and groups have usage; ask for a shorter range or fewer groups",
            )
        ranges = list(pairwise(cut.cuts))
        return Usage(
            meter=meter,
            windows=[UsageWindow(*ranges[each.number], each.group, each.value) for each in found.windows],
            total=Decimal(0) if found.total is None and meter.meter.aggregation in _ZERO else found.total,
            as_of=max(as_of, asked_at) if complete else as_of,
        )

    def _cut(self, conn: sa.Connection, question: Question, customer: Customer) -> Cut:
        zone = time_zone(question.zone, "time_zone") if question.zone else ZoneInfo(customer.time_zone)
        start, end = question.start, question.end
        if question.window is Window.BILLING_PERIOD:
            ends = totals.period_ends(conn, customer.number, start, end, _MOST_WINDOWS)
            found: list[datetime] | None = [start, *ends, end]
        else:
            found = cuts(question.window, start, end, zone, most=_MOST_WINDOWS)
        if found is None:
            raise InvalidArgument.at(
                "end_time",
                f"the range has more than {_MOST_WINDOWS} windows; ask for longer windows or a shorter range",
            )
        return Cut(found, self._torn(conn, customer, found), question.group_by, question.groups or {})

    def _torn(self, conn: sa.Connection, customer: Customer, found: Sequence[datetime]) -> list[datetime]:
        """Return the quarters that are cut within; of raw events that are gone, only buckets cut there are left."""
        within = [instant for instant in found if quarter(instant) != instant]
        floor = places.floor(conn, places.RAW)
        old = [] if floor is None else [instant for instant in within if quarter(instant) < floor]
        if old and floor is not None:
            missing = set(old) - totals.edges(conn, customer.number, old)
            if missing:
                raise RawEventsNeeded(min(missing), floor)
        return sorted({quarter(instant) for instant in within} - {quarter(instant) for instant in old})


def _check_range(start: datetime, end: datetime) -> None:
    if start >= end:
        raise InvalidArgument.at("end_time", "is not after start_time")
    if end - start > _LONGEST:
        raise InvalidArgument.at("end_time", f"is more than {_LONGEST.days} days after start_time")
