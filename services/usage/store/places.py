"""Places in the order of transactions: where the rollup is, where a reader or a seal needs it to be."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

import sqlalchemy as sa

from services.usage.errors import DatabaseRestored
from services.usage.tables import floors, rollups

STRIPE: Final = 0

_WRITER: Final = sa.text(
    """
    SELECT CAST(CAST(pg_current_xact_id() AS text) AS bigint) AS tx,
           (SELECT system_identifier FROM pg_control_system())
               = (SELECT system_identifier FROM generations ORDER BY number DESC LIMIT 1) AS same_cluster
    """
)
_BEHIND_ALL: Final = sa.text("SELECT CAST(CAST(pg_snapshot_xmax(pg_current_snapshot()) AS text) AS bigint)")


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


def raise_floor(conn: sa.Connection, accepted_from: datetime) -> None:
    """Accept no events older than this from now on; a floor never moves back."""
    mine = (floors.c.name == "accepted_from", floors.c.time < accepted_from)
    conn.execute(sa.update(floors).where(*mine).values(time=accepted_from))
