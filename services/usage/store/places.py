"""Places in the order of transactions: where the rollup is, where a reader or a seal needs it to be."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from services.usage.errors import DatabaseRestored
from services.usage.tables import floors, rollups

STRIPE: Final = 0

# Floors. Older events are refused, unless they are stored already.
ACCEPTED_FROM: Final = "accepted_from"
# Identity keys of older events are gone. At the start of a month; never above `accepted_from`.
KEYS: Final = "keys"
# Older raw events are gone: below it nothing is recounted, amended or cancelled. At the start of a month; never above
# `accepted_from`, so that nothing comes in below it.
RAW: Final = "raw"

_WRITER: Final = sa.text(
    """
    SELECT CAST(CAST(pg_current_xact_id() AS text) AS bigint) AS tx,
           (SELECT system_identifier FROM pg_control_system())
               = (SELECT system_identifier FROM generations ORDER BY number DESC LIMIT 1) AS same_cluster
    """
)
_BEHIND_ALL: Final = sa.text("SELECT CAST(CAST(pg_snapshot_xmax(pg_current_snapshot()) AS text) AS bigint)")
# Whoever reads under it may not see yet what committed before transaction `tx` began.
_OLDER_SNAPSHOT: Final = sa.text(
    """
    SELECT EXISTS (
        SELECT FROM pg_stat_activity
        WHERE backend_xmin IS NOT NULL AND pid <> pg_backend_pid() AND datname = current_database()
            AND application_name IN ('usage-server', 'usage-worker')
            AND age(backend_xmin) >= age(CAST(CAST(CAST(:tx AS text) AS xid8) AS xid)))
    """
)


@dataclass(frozen=True)
class Place:
    """How far the rollup came: every event acknowledged before `as_of` is in the totals."""

    generation: int
    last: int
    as_of: datetime


def writer(conn: sa.Connection) -> int:
    """Take this transaction's id: the first statement of every transaction that writes usage.

    Raises:
        DatabaseRestored: transaction ids are not to be relied on until the generation was raised.
    """
    row = conn.execute(_WRITER).one()
    if not row.same_cluster:
        raise DatabaseRestored
    tx: int = row.tx
    return tx


def behind_all(conn: sa.Connection) -> int:
    """Return a place behind every transaction that committed before this statement."""
    place: int = conn.execute(_BEHIND_ALL).scalar_one()
    return place


def rollup(conn: sa.Connection) -> Place:
    """Return how far the rollup came."""
    query = sa.select(rollups.c.generation, rollups.c.last, rollups.c.as_of).where(rollups.c.stripe == STRIPE)
    row = conn.execute(query).one()
    return Place(row.generation, row.last, row.as_of)


def has_older_snapshot(conn: sa.Connection, tx: int) -> bool:
    """Say whether a statement of ours is under way that does not see all that committed before transaction `tx`."""
    return bool(conn.execute(_OLDER_SNAPSHOT, {"tx": tx}).scalar_one())


def floor(conn: sa.Connection, name: str) -> datetime | None:
    """Return a floor, None where there is none yet."""
    return conn.execute(sa.select(floors.c.time).where(floors.c.name == name)).scalar_one_or_none()


def raise_floor(conn: sa.Connection, name: str, time: datetime) -> None:
    """Move a floor up; it never moves back."""
    values = insert(floors).values(name=name, time=time)
    raised = {"time": sa.func.greatest(floors.c.time, values.excluded.time)}
    conn.execute(values.on_conflict_do_update(index_elements=[floors.c.name], set_=raised))
