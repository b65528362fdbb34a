"""Quota that is set aside: reservations, and the row of each customer and meter that is locked while one changes.

A reservation counts while it is open and not expired; committed, until the rollup's place has passed its event. Both are
asked of the tables as they are now, so that nothing depends on how soon `end` sweeps.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from services.usage.domain.reservation import Reservation, ReservationState
from services.usage.store.places import STRIPE
from services.usage.tables import customers, meters, quotas, reservations

# The totals hold the event of the reservation `r`.
_IN_TOTALS: Final = f"""
    (r.state = 'COMMITTED' AND EXISTS (
        SELECT FROM event_keys AS k
        JOIN events AS e ON e.customer = k.customer AND e.time = k.time AND e.digest = k.digest
        JOIN rollups AS p ON p.stripe = {STRIPE} AND (e.generation, e.tx) < (p.generation, p.last)
        WHERE k.customer = r.customer AND k.digest = r.event))
"""
_ENDED: Final = f"(r.counts_until <= clock_timestamp() OR {_IN_TOTALS})"
_RESERVED: Final = sa.text(
    f"""
    SELECT coalesce(sum(r.quantity), 0) FROM reservations AS r
    WHERE r.customer = :customer AND r.meter = :meter AND r.counts AND NOT {_ENDED}
    """  # noqa: S608
)
_RESERVED_OF: Final = sa.text(
    f"""
    SELECT r.customer, m.id AS meter, sum(r.quantity) AS quantity
    FROM reservations AS r JOIN meters AS m ON m.number = r.meter
    WHERE r.customer = ANY(:customers) AND r.counts AND NOT {_ENDED}
    GROUP BY r.customer, m.id
    """  # noqa: S608
)
_ENDING: Final = sa.text(
    f"""
    (SELECT customer, meter FROM reservations WHERE counts AND counts_until <= clock_timestamp()
     ORDER BY counts_until LIMIT :most)
    UNION
    (SELECT r.customer, r.meter FROM reservations AS r WHERE r.counts AND {_IN_TOTALS} LIMIT :most)
    ORDER BY customer, meter
    """  # noqa: S608
)
_END: Final = sa.text(
    f"""
    UPDATE reservations AS r
    SET counts = false, ended_at = clock_timestamp(),
        state = CASE WHEN r.state = 'OPEN' THEN 'EXPIRED' ELSE r.state END
    WHERE r.customer = :customer AND r.meter = :meter AND r.counts AND {_ENDED}
    """  # noqa: S608
)
_PUBLISH: Final = """
    SELECT q.customer, q.meter, c.id AS customer_id, m.id AS meter_id, q.version,
           (SELECT max(number) FROM generations) AS generation,
           (SELECT coalesce(sum(r.quantity), 0) FROM reservations AS r
            WHERE r.customer = q.customer AND r.meter = q.meter AND r.counts AND NOT {ended}) AS quantity
    FROM quotas AS q
    JOIN customers AS c ON c.number = q.customer
    JOIN meters AS m ON m.number = q.meter
    WHERE {which}
    ORDER BY q.customer, q.meter LIMIT :most
"""
_UNPUBLISHED: Final = sa.text(_PUBLISH.format(ended=_ENDED, which="q.version <> q.published"))
_ALL: Final = sa.text(_PUBLISH.format(ended=_ENDED, which="(q.customer, q.meter) > (:customer, :meter)"))
_PURGE: Final = sa.text(
    """
    DELETE FROM reservations WHERE (customer, id) IN (
        SELECT customer, id FROM reservations
        WHERE NOT counts AND ended_at < clock_timestamp() - :kept ORDER BY ended_at LIMIT :most)
    """
)


@dataclass(frozen=True)
class Stored:
    """A reservation with its meter's number."""

    reservation: Reservation
    meter: int


@dataclass(frozen=True)
class Reserved:
    """What is set aside of a customer's meter, at a version of it."""

    customer: int
    meter: int
    customer_id: str
    meter_id: str
    version: int
    generation: int
    quantity: Decimal


def lock(conn: sa.Connection, customer: int, meter: int) -> None:
    """Let nobody else reserve, commit or release of this customer and meter until the transaction ends."""
    conn.execute(insert(quotas).values(customer=customer, meter=meter, version=0, published=0).on_conflict_do_nothing())
    mine = (quotas.c.customer == customer, quotas.c.meter == meter)
    conn.execute(sa.select(quotas.c.version).where(*mine).with_for_update())


def reserved(conn: sa.Connection, customer: int, meter: int) -> Decimal:
    """Return what is set aside.

    Read before the totals are: an event that comes into them in between counts twice then, and not nowhere.
    """
    quantity: Decimal = conn.execute(_RESERVED, {"customer": customer, "meter": meter}).scalar_one()
    return quantity


def reserved_of(conn: sa.Connection, numbers: Sequence[int]) -> dict[tuple[int, str], Decimal]:
    """Return what is set aside of customers, by number and meter's id; nothing where nothing is. See `reserved`."""
    found = conn.execute(_RESERVED_OF, {"customers": list(numbers)})
    return {(row.customer, row.meter): row.quantity for row in found}


def create(conn: sa.Connection, customer: int, meter: int, reservation: Reservation) -> None:
    """Insert an open reservation. The customer and meter are locked."""
    values = {
        "customer": customer,
        "id": reservation.id,
        "meter": meter,
        "quantity": reservation.quantity,
        "state": reservation.state.value,
        "counts": True,
        "counts_until": reservation.expire_time,
        "create_time": reservation.create_time,
        "expire_time": reservation.expire_time,
    }
    conn.execute(sa.insert(reservations).values(values))
    _changed(conn, customer, meter)


def now(conn: sa.Connection) -> datetime:
    """Return the database's time: reservations run out by its clock, whichever process asks."""
    instant: datetime = conn.execute(sa.select(sa.func.clock_timestamp())).scalar_one()
    return instant


def meter_of(conn: sa.Connection, customer: int, reservation_id: str) -> int | None:
    """Return the number of the meter that is reserved; None if there is no such reservation."""
    query = sa.select(reservations.c.meter).where(*_mine(customer, reservation_id))
    return conn.execute(query).scalar_one_or_none()


def find(conn: sa.Connection, customer: int, reservation_id: str) -> Stored | None:
    """Return a reservation as it stands now."""
    expired = (reservations.c.expire_time <= sa.func.clock_timestamp()).label("expired")
    query = (
        sa.select(reservations, expired, customers.c.id.label("customer_id"), meters.c.id.label("meter_id"))
        .join(customers, customers.c.number == reservations.c.customer)
        .join(meters, meters.c.number == reservations.c.meter)
        .where(*_mine(customer, reservation_id))
    )
    row = conn.execute(query).one_or_none()
    return None if row is None else _stored(row)


def commit(
    conn: sa.Connection,
    customer: int,
    found: Stored,
    *,
    digest: bytes,
    source: str,
    event_id: str,
    quantity: Decimal,
    until: datetime,
) -> None:
    """Have a reservation count until the totals hold its event, or until an instant. Its customer and meter are locked."""
    values = {
        "state": ReservationState.COMMITTED.value,
        "quantity": quantity,
        "event": UUID(bytes=digest),
        "event_source": source,
        "event_id": event_id,
        "counts_until": until,
    }
    mine = _mine(customer, found.reservation.id)
    conn.execute(sa.update(reservations).where(*mine).values(values))
    _changed(conn, customer, found.meter)


def release(conn: sa.Connection, customer: int, found: Stored) -> None:
    """Have a reservation count no more. Its customer and meter are locked."""
    values = {"state": ReservationState.RELEASED.value, "counts": False, "ended_at": sa.func.clock_timestamp()}
    mine = _mine(customer, found.reservation.id)
    conn.execute(sa.update(reservations).where(*mine).values(values))
    _changed(conn, customer, found.meter)


def ending(conn: sa.Connection, most: int) -> list[tuple[int, int]]:
    """Return customers and meters, in order, with reservations that count no more but are still marked so."""
    return [(row.customer, row.meter) for row in conn.execute(_ENDING, {"most": most})]


def end(conn: sa.Connection, customer: int, meter: int) -> None:
    """Mark the reservations of a customer and meter that count no more."""
    lock(conn, customer, meter)
    if conn.execute(_END, {"customer": customer, "meter": meter}).rowcount:
        _changed(conn, customer, meter)


def unpublished(conn: sa.Connection, most: int) -> list[Reserved]:
    """Return what is set aside where the live counters do not have it yet."""
    return [Reserved(**row._mapping) for row in conn.execute(_UNPUBLISHED, {"most": most})]  # noqa: SLF001 - SQLAlchemy's public name


def page(conn: sa.Connection, behind: tuple[int, int], most: int) -> list[Reserved]:
    """Return what is set aside, by customer and meter behind a place."""
    found = conn.execute(_ALL, {"customer": behind[0], "meter": behind[1], "most": most})
    return [Reserved(**row._mapping) for row in found]  # noqa: SLF001


def published(conn: sa.Connection, written: Sequence[Reserved]) -> None:
    """Store that the live counters have these versions."""
    mark = (
        sa.update(quotas)
        .where(
            quotas.c.customer == sa.bindparam("of_customer"),
            quotas.c.meter == sa.bindparam("of_meter"),
            quotas.c.published < sa.bindparam("to"),
        )
        .values(published=sa.bindparam("to"))
    )
    conn.execute(mark, [{"of_customer": each.customer, "of_meter": each.meter, "to": each.version} for each in written])


def purge(conn: sa.Connection, kept: timedelta, most: int) -> int:
    """Remove reservations that ended so long ago, at most so many; return how many."""
    return conn.execute(_PURGE, {"kept": kept, "most": most}).rowcount


def _changed(conn: sa.Connection, customer: int, meter: int) -> None:
    mine = (quotas.c.customer == customer, quotas.c.meter == meter)
    conn.execute(sa.update(quotas).where(*mine).values(version=quotas.c.version + 1))


def _mine(customer: int, reservation_id: str) -> tuple[sa.ColumnElement[bool], ...]:
    return reservations.c.customer == customer, reservations.c.id == reservation_id


def _stored(row: Any) -> Stored:
    state = ReservationState(row.state)
    if state is ReservationState.OPEN and row.expired:
        state = ReservationState.EXPIRED
    reservation = Reservation(
        id=row.id,
        customer_id=row.customer_id,
        meter=row.meter_id,
        quantity=row.quantity,
        state=state,
        create_time=row.create_time,
        expire_time=row.expire_time,
        event_source=row.event_source or "",
        event_id=row.event_id or "",
    )
    return Stored(reservation, row.meter)
