"""Events that are held until their customer or event type is known. They reserve no identity key."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from typing import Any, Final, NamedTuple
from uuid import UUID

import orjson
import psycopg
import sqlalchemy as sa
from sqlalchemy.sql.elements import ColumnElement

from services.usage.domain.event import DIGEST_BYTES, Event, identity_digest
from services.usage.domain.instant import from_us, to_us
from services.usage.store import wire
from services.usage.store.placed import Placed
from services.usage.tables import customer_keys, customers, meters, quarantine

_HOLD: Final = """
INSERT INTO quarantine (digest, content, received, customer_id, customer_key, id, source, type, time, quantities,
                        attributes, trace_id, span_id, reason)
SELECT digest, content, received, customer_id, customer_key, id, source, type, time, quantities, attributes, trace_id,
       span_id, reason
FROM jsonb_to_recordset(%s::jsonb) AS q (
    digest uuid, content uuid, received timestamptz, customer_id text, customer_key text, id text, source text,
    type text, time timestamptz, quantities jsonb, attributes jsonb, trace_id uuid, span_id bigint, reason text)
ON CONFLICT DO NOTHING
"""

_PLACE: Final = (quarantine.c.received, quarantine.c.digest, quarantine.c.content)


@dataclass(frozen=True)
class Filter:
    """Which held events are meant; empty for all."""

    customer_key: str = ""
    reason: str = ""

    def where(self) -> list[ColumnElement[bool]]:
        """Return the conditions."""
        conditions: list[ColumnElement[bool]] = [quarantine.c.refusal.is_(None)]
        if self.customer_key:
            conditions.append(quarantine.c.customer_key == self.customer_key)
        if self.reason:
            conditions.append(quarantine.c.reason == self.reason)
        return conditions


class Key(NamedTuple):
    """A held event's place in the order of receipt."""

    received: datetime
    digest: UUID
    content: UUID


@dataclass(frozen=True)
class Held:
    """A held event."""

    key: Key
    event: Event
    reason: str
    span_id: bytes


def hold(conn: psycopg.Connection[Any], held: Sequence[Placed], now: datetime) -> None:
    """Store events aside. One that is held already is stored once."""
    rows = [_row(placed, now) for placed in held]
    rows.sort(key=lambda row: (row["digest"], row["content"]))
    conn.execute(_HOLD, (orjson.dumps(rows).decode(),), prepare=True)


def page(conn: sa.Connection, chosen: Filter, behind: Key | None, limit: int) -> list[Held]:
    """Return held events in the order of receipt."""
    return [_held(row) for row in conn.execute(_select(chosen, behind).limit(limit))]


def count(conn: sa.Connection, chosen: Filter) -> int:
    """Return how many events are held."""
    return conn.execute(sa.select(sa.func.count()).select_from(quarantine).where(*chosen.where())).scalar_one()


def count_of_customer(conn: sa.Connection, number: int, before: datetime) -> int:
    """Return how many events of a customer, by its id or any of its keys, are held with a time before `before`."""
    keys = sa.select(customer_keys.c.key).where(customer_keys.c.customer == number)
    own = sa.select(customers.c.id).where(customers.c.number == number)
    query = (
        sa.select(sa.func.count())
        .select_from(quarantine)
        .where(
            quarantine.c.refusal.is_(None),
            quarantine.c.time < before,
            sa.or_(quarantine.c.customer_key.in_(keys), quarantine.c.customer_id.in_(own)),
        )
    )
    return conn.execute(query).scalar_one()


def look_ahead(conn: sa.Connection, chosen: Filter, behind: Key | None, rows: int) -> Key | None:
    """Return the place of the held event so many rows further on, None where there are fewer."""
    found = conn.execute(_behind(sa.select(*_PLACE), chosen, behind).offset(rows - 1).limit(1)).one_or_none()
    return None if found is None else Key(*found)


def lock_known(conn: sa.Connection, chosen: Filter, behind: Key | None, upto: Key | None, limit: int) -> list[Held]:
    """Lock and return held events whose customer and type are known by now, leaving out those that others replay.

    `upto` bounds what is looked at: most of what is held may stay unknown for long.
    """
    by_id = sa.exists().where(customers.c.id == quarantine.c.customer_id)
    by_key = sa.exists().where(customer_keys.c.key == quarantine.c.customer_key)
    by_type = sa.exists().where(meters.c.event_type == quarantine.c.type)
    query = _select(chosen, behind).where(sa.or_(by_id, by_key), by_type).limit(limit)
    if upto is not None:
        query = query.where(sa.tuple_(*_PLACE) <= sa.tuple_(*upto))
    return [_held(row) for row in conn.execute(query.with_for_update(of=quarantine, skip_locked=True))]


def release(conn: sa.Connection, keys: Sequence[Key]) -> None:
    """Remove events that went in."""
    conn.execute(sa.delete(quarantine).where(_is_one_of(keys)))


def refuse(conn: sa.Connection, keys: Sequence[Key], refusal: str) -> None:
    """Mark events that will never go in; they are kept for people to look at."""
    conn.execute(sa.update(quarantine).where(_is_one_of(keys)).values(refusal=refusal, refused_at=sa.func.now()))


def refuse_older(conn: sa.Connection, before: datetime, refusal: str, limit: int) -> int:
    """Mark held events of a time before `before`, at most so many; return how many there were."""
    older = sa.select(*quarantine.primary_key.columns).where(quarantine.c.refusal.is_(None), quarantine.c.time < before)
    some = sa.tuple_(*quarantine.primary_key.columns).in_(older.limit(limit))
    values = {"refusal": refusal, "refused_at": sa.func.now()}
    return conn.execute(sa.update(quarantine).where(quarantine.c.refusal.is_(None), some).values(values)).rowcount


def delete_refused(conn: sa.Connection, before: datetime, limit: int) -> int:
    """Delete events that were refused before an instant, at most so many; return how many there were."""
    old = sa.select(*quarantine.primary_key.columns).where(quarantine.c.refused_at < before).limit(limit)
    return conn.execute(sa.delete(quarantine).where(sa.tuple_(*quarantine.primary_key.columns).in_(old))).rowcount


def _is_one_of(keys: Sequence[Key]) -> ColumnElement[bool]:
    listed = [(key.digest, key.content) for key in keys]
    return sa.tuple_(quarantine.c.digest, quarantine.c.content).in_(listed)


def _select(chosen: Filter, behind: Key | None) -> sa.Select[Any]:
    columns = [
        column if column.name not in {"quantities", "attributes"} else sa.cast(column, sa.Text).label(column.name)
        for column in quarantine.c
    ]
    return _behind(sa.select(*columns), chosen, behind)


def _behind(query: sa.Select[Any], chosen: Filter, behind: Key | None) -> sa.Select[Any]:
    query = query.where(*chosen.where()).order_by(*_PLACE)
    return query if behind is None else query.where(sa.tuple_(*_PLACE) > sa.tuple_(*behind))


def _row(placed: Placed, now: datetime) -> dict[str, Any]:
    event = placed.event
    named = b"i" + event.customer_id.encode() if event.customer_id else b"k" + event.customer_key.encode()
    digest = blake2b(b"%b\0%b\0%b" % (named, event.source, event.id), digest_size=DIGEST_BYTES)
    return {
        "digest": digest.hexdigest(),
        "content": event.content.hex(),
        "received": now,
        "customer_id": event.customer_id,
        "customer_key": event.customer_key,
        "id": event.id.decode(),
        "source": event.source.decode(),
        "type": event.type.decode(),
        "time": from_us(event.time),
        "quantities": orjson.Fragment(event.quantities) if event.quantities else None,
        "attributes": orjson.Fragment(event.attributes) if event.attributes else None,
        "trace_id": event.trace_id.hex() or None,
        "span_id": wire.number(placed.span_id) if placed.span_id else None,
        "reason": placed.reason,
    }


def _held(row: Any) -> Held:
    identity, source = row.id.encode(), row.source.encode()
    event = Event(
        customer_id=row.customer_id,
        customer_key=row.customer_key,
        id=identity,
        source=source,
        type=row.type.encode(),
        time=to_us(row.time),
        quantities=(row.quantities or "").encode(),
        attributes=(row.attributes or "").encode(),
        trace_id=row.trace_id.bytes if row.trace_id else b"",
        identity=identity_digest(source, identity),
        content=row.content.bytes,
    )
    span_id = b"" if row.span_id is None else wire.int8(row.span_id)
    return Held(Key(row.received, row.digest, row.content), event, row.reason, span_id)
