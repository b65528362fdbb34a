"""Corrections as rows: read and written in the transaction of an amend or a cancel."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from services.usage.domain.correction import Correction, Kind, Reference
from services.usage.domain.event import Event
from services.usage.tables import Xid8, corrections, event_keys, events, generations, seals


@dataclass(frozen=True)
class Target:
    """A stored event that is to be corrected, and the seal that it came too late for (0 for none).

    `is_older` says that its transaction comes before the one that asks, in the order in which the rollup takes them.
    """

    customer: int
    digest: UUID
    reference: Reference
    time: datetime
    type: str
    seal: int
    is_older: bool


@dataclass(frozen=True)
class Made:
    """A correction that was made, with the contents of the superseding event (None for a cancel)."""

    correction: Correction
    content: bytes | None


def target(conn: sa.Connection, customer: int, reference: Reference, digest: bytes, tx: int) -> Target | None:
    """Return a customer's event; None if its raw event is not there (any more).

    Args:
        conn: a transaction.
        customer: its number.
        reference: the event's source and id.
        digest: of these.
        tx: the transaction's id.
    """
    key = (event_keys.c.customer == customer, event_keys.c.digest == UUID(bytes=digest))
    time = sa.select(event_keys.c.time).where(*key).scalar_subquery()
    mine = sa.tuple_(_generation(), sa.literal(tx, Xid8))
    is_older = (sa.tuple_(events.c.generation, events.c.tx) < mine).label("is_older")
    query = sa.select(events.c.time, events.c.type, events.c.seal, is_older).where(
        events.c.customer == customer, events.c.time == time, events.c.digest == UUID(bytes=digest)
    )
    row = conn.execute(query).one_or_none()
    if row is None:
        return None
    return Target(customer, UUID(bytes=digest), reference, row.time, row.type, row.seal, row.is_older)


def key_time(conn: sa.Connection, customer: int, digest: bytes) -> datetime | None:
    """Return the time of a customer's event whose identity is known, even if its raw event is gone."""
    mine = (event_keys.c.customer == customer, event_keys.c.digest == UUID(bytes=digest))
    return conn.execute(sa.select(event_keys.c.time).where(*mine)).scalar_one_or_none()


def made(conn: sa.Connection, customer: int, digest: bytes) -> Made | None:
    """Return the correction of an event."""
    superseding = sa.and_(
        event_keys.c.customer == corrections.c.customer, event_keys.c.digest == corrections.c.superseding
    )
    query = (
        sa.select(corrections, event_keys.c.content)
        .outerjoin(event_keys, superseding)
        .where(corrections.c.customer == customer, corrections.c.digest == UUID(bytes=digest))
    )
    row = conn.execute(query).one_or_none()
    if row is None:
        return None
    return Made(correction(row), None if row.content is None else row.content.bytes)


def seal_over(conn: sa.Connection, customer: int, time: datetime) -> int:
    """Return the seal whose totals cover an instant, 0 for none.

    For events that came in time. The transaction must have its id already: a seal that it does not see now waits for it.
    """
    query = sa.select(seals.c.number).where(
        seals.c.customer == customer, seals.c.from_time <= time, seals.c.end_time > time
    )
    return conn.execute(query).scalar_one_or_none() or 0


def insert_once(
    conn: sa.Connection,
    corrected: Target,
    superseding: Event | None,
    *,
    seal: int,
    reason: str,
    context: dict[str, str],
    now: datetime,
) -> bool:
    """Insert a correction; say whether it is the event's first. One that is under way elsewhere is waited for.

    Args:
        conn: a transaction that has its id.
        corrected: the event that counts no more.
        superseding: what counts instead, None for a cancel.
        seal: whose totals or late usage have the corrected event in them, 0 for none.
        reason: for people.
        context: the W3C trace context of the caller.
        now: when it is made.
    """
    values = {
        "customer": corrected.customer,
        "digest": corrected.digest,
        "time": corrected.time,
        "tx": sa.func.pg_current_xact_id(),
        "generation": _generation(),
        "seal": seal,
        "event_type": corrected.type,
        "kind": (Kind.CANCEL if superseding is None else Kind.AMEND).value,
        "id": corrected.reference.id,
        "source": corrected.reference.source,
        "superseding": None if superseding is None else UUID(bytes=superseding.identity),
        "superseding_id": "" if superseding is None else superseding.id.decode(),
        "superseding_source": "" if superseding is None else superseding.source.decode(),
        "reason": reason,
        "context": context,
        "created_at": now,
    }
    statement = insert(corrections).values(values)
    first = statement.on_conflict_do_nothing(index_elements=["customer", "digest"]).returning(corrections.c.customer)
    return conn.execute(first).one_or_none() is not None


def correction(row: Any) -> Correction:
    """Return what a row with the columns of a correction says."""
    superseded_by = Reference(row.superseding_source, row.superseding_id) if row.kind == Kind.AMEND else None
    return Correction(Kind(row.kind), superseded_by, row.reason, row.created_at)


def _generation() -> sa.ScalarSelect[int]:
    return sa.select(sa.func.max(generations.c.number)).scalar_subquery()
