"""Recounts: which are on their way, how far they are, and what they ask the rollup to set."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from services.usage.domain.instant import QUARTER, quarter
from services.usage.domain.recount import Recount, RecountState
from services.usage.store.states import TX
from services.usage.tables import customers, recount_slices, recounts

# An event may be so much ahead of now, and a quarter of an hour is whole.
_AHEAD: Final = timedelta(minutes=30)
_SIZE: Final = sa.text(
    """
    SELECT count(*) AS count, max(time) AS last FROM (
        SELECT time FROM events WHERE customer = :customer AND time >= :start AND time < :end ORDER BY time LIMIT :most
    ) AS e
    """
)
_HAS_TOTALS: Final = sa.text(
    """
    SELECT EXISTS (SELECT FROM bucket_totals WHERE customer = :customer AND meter = :meter
                       AND start_time >= :start AND start_time < :end)
    """
)
_ASK: Final = sa.text(
    f"""
    INSERT INTO recount_slices (recount, customer, start_time, end_time, meter, tx, generation)
    SELECT :recount, :customer, :start, :end, :meter, {TX.format("tx")}, max(number) FROM generations
    """  # noqa: S608 - the parts are constants
)


@dataclass(frozen=True)
class Place:
    """Where a recount goes on: at a customer's time, or at the first customer behind."""

    customer: int
    time: datetime


@dataclass(frozen=True)
class Running:
    """A recount that is not done."""

    recount: Recount
    meter: int
    place: Place


def begin(conn: sa.Connection, meter: int, start: datetime, now: datetime) -> int | None:
    """Store a recount of a meter's events from `start` on; return its number, None while another is on its way."""
    total = sa.select(sa.func.count()).select_from(customers).scalar_subquery()
    start = quarter(start)
    values = {
        "meter": meter,
        "state": RecountState.RUNNING.value,
        "start_time": start,
        "end_time": quarter(now) + _AHEAD,
        "customer": 0,
        "next_time": start,
        "customers_total": total,
        "customers_done": 0,
        "events_done": 0,
        "created_at": now,
    }
    fresh = insert(recounts).values(values).on_conflict_do_nothing().returning(recounts.c.number)
    return conn.execute(fresh).scalar_one_or_none()


def latest(conn: sa.Connection, meter: int) -> Recount | None:
    """Return a meter's recount that was begun last."""
    query = sa.select(recounts).where(recounts.c.meter == meter).order_by(recounts.c.number.desc()).limit(1)
    row = conn.execute(query).one_or_none()
    return None if row is None else _recount(row)


def lock(conn: sa.Connection, number: int) -> Running | None:
    """Lock a recount until the transaction ends; None if it is done."""
    query = sa.select(recounts).where(recounts.c.number == number).with_for_update()
    row = conn.execute(query).one()
    if row.state == RecountState.DONE:
        return None
    return Running(_recount(row), row.meter, Place(row.customer, row.next_time))


def ask(conn: sa.Connection, running: Running, *, tx: int, most_events: int, most_customers: int) -> bool:
    """Ask for the next slices and move the recount on; False if there are none left.

    Args:
        conn: a transaction whose id is `tx`.
        running: the locked recount.
        tx: the rollup sets the slices when it comes beyond it.
        most_events: in all slices, but for a quarter of an hour that has more.
        most_customers: that are looked at.
    """
    recount, place = running.recount, running.place
    query = sa.select(customers.c.number).where(customers.c.number >= place.customer)
    numbers = list(conn.execute(query.order_by(customers.c.number).limit(most_customers)).scalars())
    events = done = 0
    following = place
    for number in numbers:
        start = place.time if number == place.customer else recount.start
        end, count = _slice(conn, number, start, recount.end, most_events - events)
        asked = {"customer": number, "meter": running.meter, "start": start, "end": end}
        if count or conn.execute(_HAS_TOTALS, asked).scalar_one():
            conn.execute(_ASK, asked | {"recount": recount.number, "tx": tx})
        events += count
        following = Place(number, end) if end < recount.end else Place(number + 1, recount.start)
        done += end == recount.end
        if events >= most_events:
            break
    values = {
        "customer": following.customer,
        "next_time": following.time,
        "customers_done": recounts.c.customers_done + done,
        "events_done": recounts.c.events_done + events,
    }
    conn.execute(sa.update(recounts).where(recounts.c.number == recount.number).values(values))
    return bool(numbers)


def forget(conn: sa.Connection, number: int) -> None:
    """Drop a recount's slices: the rollup has set them."""
    conn.execute(sa.delete(recount_slices).where(recount_slices.c.recount == number))


def end(conn: sa.Connection, number: int, now: datetime) -> None:
    """Say that a recount is done."""
    values = {"state": RecountState.DONE.value, "ended_at": now, "customers_total": recounts.c.customers_done}
    conn.execute(sa.update(recounts).where(recounts.c.number == number).values(values))


def _slice(conn: sa.Connection, customer: int, start: datetime, end: datetime, most: int) -> tuple[datetime, int]:
    """Return where a slice of whole quarters with about so many events ends, and how many it has."""
    row = conn.execute(_SIZE, {"customer": customer, "start": start, "end": end, "most": most}).one()
    # `row.count` is the method of tuples.
    count = int(row._mapping["count"])  # noqa: SLF001 - SQLAlchemy's public name
    return (end, count) if count < most else (min(quarter(row.last) + QUARTER, end), count)


def _recount(row: Any) -> Recount:
    return Recount(
        number=row.number,
        state=RecountState(row.state),
        start=row.start_time,
        end=row.end_time,
        customers_total=row.customers_total,
        customers_done=row.customers_done,
        events_done=row.events_done,
        create_time=row.created_at,
        end_time=row.ended_at,
    )
