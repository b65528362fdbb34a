"""What a report looks at: its range, the one before, and the periods that they touch."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

import sqlalchemy as sa

from services.kit.errors import InvalidArgument
from services.usage.domain.calendar import Day, days
from services.usage.domain.instant import quarter
from services.usage.domain.limit import Period
from services.usage.domain.report import Comparison, before, comparison
from services.usage.store import costs, customers
from services.usage.store.customers import Customer

_LONGEST: Final = timedelta(days=3660)


@dataclass(frozen=True)
class Scope:
    """A range of a customer, what it is compared with, the periods it touches, and up to when usage is known.

    Every event acknowledged before `as_of` is counted. `is_complete` says whether nothing older than the question is
    missing.
    """

    customer: Customer
    period: Period
    compared: Comparison
    periods: Sequence[Period]
    now: datetime
    as_of: datetime
    is_complete: bool

    @property
    def first(self) -> datetime:
        """The earliest instant that is looked at."""
        return min(self.compared.previous.start, self.periods[0].start)

    @property
    def behind(self) -> datetime:
        """The first instant that is not."""
        return max(self.period.end, self.periods[-1].end)

    @property
    def days(self) -> list[Day]:
        """The range's days by the customer's clock."""
        return days(self.period.start, self.period.end, ZoneInfo(self.customer.time_zone))


def period_of(conn: sa.Connection, customer: Customer, start: datetime | None, end: datetime | None) -> Period:
    """Return the range that is asked for; what is not given is the current period's.

    Raises:
        InvalidArgument: a range that is none, too long or not in quarters of an hour.
    """
    period = Period(start or customer.period.start, end or customer.period.end)
    for field, instant in (("start_time", period.start), ("end_time", period.end)):
        if quarter(instant) != instant and customers.period_start(conn, customer.number, instant) != instant:
            raise InvalidArgument.at(
                field, f"{instant.isoformat()} is neither a whole quarter of an hour (UTC) nor the start of a period"
            )
    if period.start >= period.end:
        raise InvalidArgument.at("end_time", "is not after start_time")
    if period.end - period.start > _LONGEST:
        raise InvalidArgument.at("end_time", f"is more than {_LONGEST.days} days after start_time")
    return period


def scope(
    conn: sa.Connection, customer: Customer, period: Period, *, now: datetime, as_of: datetime, is_complete: bool
) -> Scope:
    """Return what a report on a range looks at; see `Scope`."""
    return Scope(
        customer=customer,
        period=period,
        compared=comparison(period, _previous(conn, customer.number, period), now),
        periods=costs.periods(conn, customer.number, period.start, period.end),
        now=now,
        as_of=as_of,
        is_complete=is_complete,
    )


def _previous(conn: sa.Connection, customer: int, period: Period) -> Period:
    """Return the period before, if the range is a period, else the time of the same length before the range."""
    if costs.periods(conn, customer, period.start, period.end) == [period]:
        instant = period.start - timedelta(microseconds=1)
        return costs.periods(conn, customer, instant, period.start)[0]
    return before(period)
