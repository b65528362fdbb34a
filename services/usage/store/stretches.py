"""Old rows of large tables, deleted a stretch of blocks at a time.

No index knows the time of an identity key: one more would cost each event that comes in. A pass over all keys once a
month is cheap.
"""

from datetime import datetime
from typing import Final, NamedTuple

import sqlalchemy as sa

# 16 MB, some 200,000 keys.
_BLOCKS: Final = 2_000
_ARCHIVE: Final = "events_archive_default"
_SIZES: Final = """
    SELECT c.relname, pg_relation_size(c.oid) / CAST(current_setting('block_size') AS bigint) AS blocks
    FROM pg_class AS c WHERE {which} ORDER BY 1
"""
_KEYS: Final = sa.text(
    _SIZES.format(which="c.oid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = CAST('event_keys' AS regclass))")
)
_DEFAULT: Final = sa.text(_SIZES.format(which="c.oid = CAST('events_default' AS regclass)"))


class Stretch(NamedTuple):
    """A table, and the first of its blocks that are meant."""

    table: str
    first: int


def of_keys(conn: sa.Connection) -> list[Stretch]:
    """Return all identity keys in stretches."""
    return _stretches(conn, _KEYS)


def of_default(conn: sa.Connection) -> list[Stretch]:
    """Return the events of the default partition in stretches."""
    return _stretches(conn, _DEFAULT)


def prepare_archive(conn: sa.Connection) -> None:
    """Make the table for what is taken out of the default partition and kept."""
    conn.exec_driver_sql(f"CREATE TABLE IF NOT EXISTS {_ARCHIVE} (LIKE events)")


def delete(conn: sa.Connection, stretch: Stretch, floor: datetime) -> int:
    """Delete a stretch's rows of a time before `floor`; return how many there were."""
    return conn.execute(sa.text(_delete(stretch)), {"floor": floor}).rowcount


def archive(conn: sa.Connection, stretch: Stretch, floor: datetime) -> int:
    """Move a stretch's events of a time before `floor` to the archive; return how many there were."""
    moved = f"WITH gone AS ({_delete(stretch)} RETURNING *) INSERT INTO {_ARCHIVE} SELECT * FROM gone"  # noqa: S608 - names of ours
    return conn.execute(sa.text(moved), {"floor": floor}).rowcount


def _stretches(conn: sa.Connection, sizes: sa.TextClause) -> list[Stretch]:
    return [Stretch(row.relname, first) for row in conn.execute(sizes) for first in range(0, row.blocks, _BLOCKS)]


def _delete(stretch: Stretch) -> str:
    within = f"ctid >= '({stretch.first},0)' AND ctid < '({stretch.first + _BLOCKS},0)'"
    return f"DELETE FROM {stretch.table} WHERE {within} AND time < :floor"  # noqa: S608 - a name of ours
