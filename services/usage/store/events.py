"""Stored events, to look at."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

import sqlalchemy as sa

from services.kit.money import plain
from services.usage.domain.correction import Correction, EventState, Kind, Reference
from services.usage.store import corrections as made
from services.usage.tables import corrections, customers, event_keys, events


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
    corrected = chosen.state in {EventState.AMENDED, EventState.CANCELLED}
    # Corrections are few: those of a state are found among them, and not among all events.
    table = corrections if corrected else events
    place = (table.c.time, table.c.digest)
    query = sa.select(events).where(table.c.customer == customer, *_where(chosen, table.c.time))
    if corrected:
        kind = Kind.AMEND if chosen.state is EventState.AMENDED else Kind.CANCEL
        query = query.join(corrections, _is_of(corrections.c, events.c)).where(corrections.c.kind == kind)
    elif chosen.state is EventState.ACTIVE:
        query = query.where(~sa.exists().where(_is_of(corrections.c, events.c)))
    if behind is not None:
        # The first condition follows from the second; partitions are left out by it.
        query = query.where(table.c.time >= behind.time, sa.tuple_(*place) > sa.tuple_(*behind))
    rows = conn.execute(_shown(query.order_by(*place).limit(limit)))
    return [(Key(row.time, row.digest), _stored(row)) for row in rows]


def quantities(text: str | None) -> dict[str, str]:
    """Return a stored JSON object of numbers as plain numbers by name; no digit is lost."""
    if not text:
        return {}
    numbers = json.loads(text, parse_float=Decimal, parse_int=Decimal)
    return {name: plain(number) for name, number in numbers.items()}


def _where(chosen: Filter, time: sa.ColumnElement[datetime]) -> Sequence[sa.ColumnElement[bool]]:
    conditions: list[sa.ColumnElement[bool]] = []
    if chosen.start is not None:
        conditions.append(time >= chosen.start)
    if chosen.end is not None:
        conditions.append(time < chosen.end)
    if chosen.type:
        conditions.append(events.c.type == chosen.type)
    if chosen.source:
        conditions.append(events.c.source == chosen.source)
    return conditions


def _is_of(correction: Any, event: Any) -> sa.ColumnElement[bool]:
    return sa.and_(
        correction.customer == event.customer, correction.time == event.time, correction.digest == event.digest
    )


def _shown(found: sa.Select[Any]) -> sa.Select[Any]:
    """Return what is shown of the events that a query finds, in their order of time."""
    event = found.subquery("e")
    of_it, by_it = corrections.alias("of_it"), corrections.alias("by_it")
    superseded = sa.and_(by_it.c.customer == event.c.customer, by_it.c.superseding == event.c.digest)
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
        .outerjoin(of_it, sa.and_(of_it.c.customer == event.c.customer, of_it.c.digest == event.c.digest))
        .outerjoin(by_it, superseded)
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
        correction=None if row.kind is None else made.correction(row),
        supersedes=None if row.corrected_id is None else Reference(row.corrected_source, row.corrected_id),
    )
