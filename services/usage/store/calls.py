"""Stored calls, to look at."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from services.usage.domain.call import EVENT_TYPE
from services.usage.store.events import Key, quantities
from services.usage.tables import corrections, events


@dataclass(frozen=True)
class StoredCall:
    """A call as it is stored: plain numbers by name, and a JSON object of texts."""

    id: str
    source: str
    time: datetime
    quantities: dict[str, str]
    attributes: str
    trace_id: str


@dataclass(frozen=True)
class Filter:
    """Which calls of a customer are meant; empty or None for all."""

    start: datetime | None = None
    end: datetime | None = None
    call_type: str = ""
    country: str = ""
    callee_prefix: str = ""


def page(
    conn: sa.Connection, customer: int, chosen: Filter, behind: Key | None, limit: int
) -> list[tuple[Key, StoredCall]]:
    """Return a customer's calls in the order of their time, but those that were amended or cancelled."""
    place = (events.c.time, events.c.digest)
    corrected = sa.exists().where(
        corrections.c.customer == events.c.customer,
        corrections.c.time == events.c.time,
        corrections.c.digest == events.c.digest,
    )
    conditions = [events.c.customer == customer, events.c.type == EVENT_TYPE, ~corrected]
    if chosen.start is not None:
        conditions.append(events.c.time >= chosen.start)
    if chosen.end is not None:
        conditions.append(events.c.time < chosen.end)
    if chosen.call_type:
        conditions.append(events.c.attributes["call_type"].astext == chosen.call_type)
    if chosen.country:
        conditions.append(events.c.attributes["country"].astext == chosen.country)
    if chosen.callee_prefix:
        conditions.append(events.c.attributes["callee"].astext.startswith(chosen.callee_prefix, autoescape=True))
    if behind is not None:
        # The first follows from the second; partitions are left out by it.
        conditions += [events.c.time >= behind.time, sa.tuple_(*place) > sa.tuple_(*behind)]
    query = (
        sa.select(
            events.c.id,
            events.c.source,
            events.c.time,
            events.c.digest,
            sa.cast(events.c.quantities, sa.Text).label("quantities"),
            sa.cast(events.c.attributes, sa.Text).label("attributes"),
            events.c.trace_id,
        )
        .where(*conditions)
        .order_by(*place)
        .limit(limit)
    )
    return [(Key(row.time, row.digest), _stored(row)) for row in conn.execute(query)]


def _stored(row: Any) -> StoredCall:
    return StoredCall(
        id=row.id,
        source=row.source,
        time=row.time,
        quantities=quantities(row.quantities),
        attributes=row.attributes or "{}",
        trace_id=row.trace_id.hex if row.trace_id else "",
    )
