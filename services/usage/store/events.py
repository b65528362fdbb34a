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
from services.usage.tables import customers, event_keys, events


@dataclass(frozen=True)
class StoredEvent:
    """An event as it is stored. `quantities` are plain numbers by name, `attributes` a JSON object or empty."""

    id: str
    source: str
    type: str
    customer_id: str
    customer_key: str
    time: datetime
    quantities: dict[str, str]
    attributes: str
    trace_id: str


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


def find(conn: sa.Connection, customer: int, digest: bytes) -> StoredEvent | None:
    """Return a customer's event by the digest of its source and id."""
    time = (
        sa.select(event_keys.c.time)
        .where(event_keys.c.customer == customer, event_keys.c.digest == UUID(bytes=digest))
        .scalar_subquery()
    )
    mine = (events.c.customer == customer, events.c.time == time, events.c.digest == UUID(bytes=digest))
    row = conn.execute(_columns().where(*mine)).one_or_none()
    return None if row is None else _stored(row)


def page(
    conn: sa.Connection, customer: int, chosen: Filter, behind: Key | None, limit: int
) -> list[tuple[Key, StoredEvent]]:
    """Return a customer's events in the order of their time."""
    place = (events.c.time, events.c.digest)
    query = _columns().where(events.c.customer == customer, *_where(chosen)).order_by(*place).limit(limit)
    if behind is not None:
        query = query.where(sa.tuple_(*place) > sa.tuple_(*behind))
    return [(Key(row.time, row.digest), _stored(row)) for row in conn.execute(query)]


def quantities(text: str | None) -> dict[str, str]:
    """Return a stored JSON object of numbers as plain numbers by name; no digit is lost."""
    if not text:
        return {}
    numbers = json.loads(text, parse_float=Decimal, parse_int=Decimal)
    return {name: plain(number) for name, number in numbers.items()}


def _where(chosen: Filter) -> Sequence[sa.ColumnElement[bool]]:
    conditions: list[sa.ColumnElement[bool]] = []
    if chosen.start is not None:
        conditions.append(events.c.time >= chosen.start)
    if chosen.end is not None:
        conditions.append(events.c.time < chosen.end)
    if chosen.type:
        conditions.append(events.c.type == chosen.type)
    if chosen.source:
        conditions.append(events.c.source == chosen.source)
    return conditions


def _columns() -> sa.Select[Any]:
    return sa.select(
        events.c.id,
        events.c.source,
        events.c.type,
        customers.c.id.label("customer_id"),
        events.c.time,
        events.c.digest,
        sa.cast(events.c.quantities, sa.Text).label("quantities"),
        sa.cast(events.c.attributes, sa.Text).label("attributes"),
        events.c.trace_id,
    ).join(customers, customers.c.number == events.c.customer)


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
    )
