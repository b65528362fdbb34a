"""Stored events, to look at."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, NamedTuple
from uuid import UUID

import sqlalchemy as sa

from services.kit.money import plain
from services.usage.domain.correction import Correction, EventState, Kind, Reference
from services.usage.domain.instant import EARLIEST
from services.usage.store import states
from services.usage.store.corrections import correction
from services.usage.store.places import RAW
from services.usage.tables import corrections, customers, event_keys, events, floors, meters


@dataclass(frozen=True)
class StoredEvent:
    """An event as it is stored. `quantities` are plain numbers by name, `attributes` a JSON object or empty.

    `correction` says what became of it; None while it counts. `supersedes` is the event that it counts instead of.
    """

    id: str
    source: str
    type: str
    customer_id: str
    customer_key: str
    time: datetime
    quantities: dict[str, str]
    attributes: str
    trace_id: str
    correction: Correction | None = None
    supersedes: Reference | None = None


class Key(NamedTuple):
    """An event's place in its customer's list."""

    time: datetime
    digest: UUID


@dataclass(frozen=True)
class Filter:
    """Which events of a customer are meant; empty or None for all."""

    start: datetime | None = None
    end: datetime | None = None
    type: str = ""
    source: str = ""
    state: EventState | None = None
    meter: str = ""


# The names are those of `states`.
_event, _meter = events.alias("e"), meters.alias("m")
_METER: Final = sa.text(f"m.id = :meter AND {states.COUNTS} AND {states.MATCHES}")


def find(conn: sa.Connection, customer: int, digest: bytes) -> StoredEvent | None:
    """Return a customer's event by the digest of its source and id."""
    time = (
        sa.select(event_keys.c.time)
        .where(event_keys.c.customer == customer, event_keys.c.digest == UUID(bytes=digest))
        .scalar_subquery()
    )
    mine = (events.c.customer == customer, events.c.time == time, events.c.digest == UUID(bytes=digest))
    row = conn.execute(_shown(sa.select(events).where(*mine))).one_or_none()
    return None if row is None else _stored(row)


def page(
    conn: sa.Connection, customer: int, chosen: Filter, behind: Key | None, limit: int
) -> list[tuple[Key, StoredEvent]]:
    """Return a customer's events in the order of their time."""
    if chosen.state in {EventState.AMENDED, EventState.CANCELLED}:
        query = _corrected(customer, chosen, behind, limit)
    else:
        where = _where(chosen, _event.c, _event.c.type, behind)
        query = sa.select(_event).where(_event.c.customer == customer, *where)
        if chosen.state is EventState.ACTIVE:
            # The offset keeps it a look at each event that is read, instead of a join of all.
            removed = sa.select(corrections.c.kind).where(_is_of(corrections.c, _event.c)).offset(0)
            query = query.where(~sa.exists(removed))
        if chosen.meter:
            query = query.where(_is_counted(chosen.meter))
        query = query.order_by(_event.c.time, _event.c.digest).limit(limit)
    rows = conn.execute(_shown(query))
    return [(Key(row.time, row.digest), _stored(row)) for row in rows]


def quantities(text: str | None) -> dict[str, str]:
    """Return a stored JSON object of numbers as plain numbers by name; no digit is lost."""
    if not text:
        return {}
    numbers = json.loads(text, parse_float=Decimal, parse_int=Decimal)
    return {name: plain(number) for name, number in numbers.items()}


def _corrected(customer: int, chosen: Filter, behind: Key | None, limit: int) -> sa.Select[Any]:
    """Find events of a state other than ACTIVE: among the corrections, which are few, and not among all events."""
    found = corrections.c
    counted = [sa.exists(sa.select(_event).where(_is_of(found, _event.c), _is_counted(chosen.meter)))]
    kept_from = sa.select(floors.c.time).where(floors.c.name == RAW).scalar_subquery()
    page = (
        sa.select(found.customer, found.time, found.digest)
        .where(
            found.customer == customer,
            found.kind == (Kind.AMEND if chosen.state is EventState.AMENDED else Kind.CANCEL),
            # Of older ones the events are gone.
            found.time >= sa.func.coalesce(kept_from, EARLIEST),
            *_where(chosen, found, found.event_type, behind),
            *(counted if chosen.meter else ()),
        )
        .order_by(found.time, found.digest)
        .limit(limit)
        .subquery("k")
    )
    # One by one: a join of both in the order of time reads events by the thousand.
    event = sa.select(events).where(_is_of(page.c, events.c)).lateral("event")
    return sa.select(event).select_from(page.join(event, sa.true()))


def _where(
    chosen: Filter,
    columns: Any,
    event_type: sa.ColumnElement[str],
    behind: Key | None,
) -> Sequence[sa.ColumnElement[bool]]:
    conditions: list[sa.ColumnElement[bool]] = []
    if chosen.start is not None:
        conditions.append(columns.time >= chosen.start)
    if chosen.end is not None:
        conditions.append(columns.time < chosen.end)
    if chosen.type:
        conditions.append(event_type == chosen.type)
    if chosen.source:
        conditions.append(columns.source == chosen.source)
    if behind is not None:
        # The first follows from the second; partitions are left out by it.
        place = sa.tuple_(columns.time, columns.digest) > sa.tuple_(*behind)
        conditions += [columns.time >= behind.time, place]
    return conditions


def _is_counted(meter: str) -> sa.ColumnElement[bool]:
    """Say of an event `e` whether a meter counts it."""
    return sa.exists(sa.select(_meter).where(_METER.bindparams(meter=meter)))


def _is_of(correction: Any, event: Any) -> sa.ColumnElement[bool]:
    return sa.and_(
        correction.customer == event.customer, correction.time == event.time, correction.digest == event.digest
    )


def _shown(found: sa.Select[Any]) -> sa.Select[Any]:
    """Return what is shown of the events that a query finds, in their order of time."""
    event = found.subquery("e")
    # One look into an index for each event that is shown, and no join with all corrections: hence the limits.
    made = sa.select(corrections).where(corrections.c.customer == event.c.customer).limit(1)
    of_it = made.where(corrections.c.digest == event.c.digest).lateral("of_it")
    by_it = made.where(corrections.c.superseding == event.c.digest).lateral("by_it")
    return (
        sa.select(
            event.c.id,
            event.c.source,
            event.c.type,
            customers.c.id.label("customer_id"),
            event.c.time,
            event.c.digest,
            sa.cast(event.c.quantities, sa.Text).label("quantities"),
            sa.cast(event.c.attributes, sa.Text).label("attributes"),
            event.c.trace_id,
            of_it.c.kind,
            of_it.c.superseding_id,
            of_it.c.superseding_source,
            of_it.c.reason,
            of_it.c.created_at,
            by_it.c.id.label("corrected_id"),
            by_it.c.source.label("corrected_source"),
        )
        .join(customers, customers.c.number == event.c.customer)
        .outerjoin(of_it, sa.true())
        .outerjoin(by_it, sa.true())
        .order_by(event.c.time, event.c.digest)
    )


def _stored(row: Any) -> StoredEvent:
    return StoredEvent(
        id=row.id,
        source=row.source,
        type=row.type,
        customer_id=row.customer_id,
        customer_key="",
        time=row.time,
        quantities=quantities(row.quantities),
        attributes=row.attributes or "",
        trace_id=row.trace_id.hex if row.trace_id else "",
        correction=None if row.kind is None else correction(row),
        supersedes=None if row.corrected_id is None else Reference(row.corrected_source, row.corrected_id),
    )
