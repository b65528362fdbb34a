"""Month partitions of events. What lies in no month that has one goes to the default partition and stays there."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

import sqlalchemy as sa

# Attaching and detaching wait for running transactions; ingest would wait behind them, so they do not wait long.
_LOCK: Final = "SET LOCAL lock_timeout = '1s'"
_MISSING: Final = sa.text(
    """
    SELECT month, 'events_' || to_char(month, 'YYYYMM') AS name
    FROM generate_series(
        date_trunc('month', CAST(:first AS timestamptz), 'UTC'), CAST(:last AS timestamptz), interval '1 month'
    ) AS month
    WHERE to_regclass('events_' || to_char(month, 'YYYYMM')) IS NULL
        AND NOT EXISTS (SELECT FROM events_default WHERE time >= month AND time < month + interval '1 month')
    ORDER BY month
    """
)
_ATTACHED: Final = sa.text(
    """
    SELECT c.relname FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
    WHERE i.inhparent = CAST('events' AS regclass) AND c.relname ~ '^events_[0-9]{6}$' ORDER BY 1
    """
)
# A customer's usage is settled where sealed totals have it. Whoever has no plan is billed up to the end of the last
# billing period, and never for what is behind it.
_UNSETTLED: Final = sa.text(
    """
    SELECT c.number, c.id, first.time
    FROM (SELECT number, id, has_plan FROM customers WHERE number > :behind ORDER BY number LIMIT :most) AS c
    LEFT JOIN LATERAL (
        SELECT coalesce(least(max(s.end_time) FILTER (WHERE s.sealed_at IS NOT NULL),
                              min(s.from_time) FILTER (WHERE s.sealed_at IS NULL)), '-infinity') AS upto
        FROM seals AS s WHERE s.customer = c.number
    ) AS sealed ON true
    LEFT JOIN LATERAL (
        SELECT least(CAST(:before AS timestamptz),
                     CASE WHEN c.has_plan THEN 'infinity' ELSE coalesce(max(p.end_time), '-infinity') END) AS upto
        FROM periods AS p WHERE p.customer = c.number
    ) AS billed ON true
    LEFT JOIN LATERAL (
        SELECT e.time FROM events AS e
        WHERE e.customer = c.number AND e.time >= sealed.upto AND e.time < billed.upto ORDER BY e.time LIMIT 1
    ) AS first ON sealed.upto < billed.upto
    ORDER BY c.number
    """
)


@dataclass(frozen=True)
class Unsettled:
    """The oldest event that is still to be sealed."""

    customer_id: str
    time: datetime


def missing(conn: sa.Connection, first: datetime, last: datetime) -> list[tuple[str, datetime, datetime]]:
    """Return the months between two instants that want a partition, as (name, start, end)."""
    found = conn.execute(_MISSING, {"first": first, "last": last})
    return [(row.name, row.month, _next(row.month)) for row in found]


def create(conn: sa.Connection, name: str, start: datetime, end: datetime) -> None:
    """Create a month's partition, beside running ingest."""
    bounds = f"FOR VALUES FROM ('{start.isoformat()}') TO ('{end.isoformat()}')"
    conn.exec_driver_sql(_LOCK)
    conn.exec_driver_sql(f"CREATE TABLE {name} (LIKE events INCLUDING DEFAULTS INCLUDING CONSTRAINTS)")
    conn.exec_driver_sql(f"ALTER TABLE events ATTACH PARTITION {name} {bounds}")


def unsettled(conn: sa.Connection, before: datetime, behind: int, most: int) -> tuple[Unsettled | None, int | None]:
    """Return, of some customers, the oldest event before an instant that an invoice is still to be made of.

    Args:
        conn: a connection.
        before: the instant.
        behind: customers with a higher number are looked at,
        most: and at most so many of them.

    Returns:
        The event, None if there is none; and the number to go on behind, None at the end.
    """
    rows = conn.execute(_UNSETTLED, {"before": before, "behind": behind, "most": most}).all()
    oldest = min((row for row in rows if row.time is not None), key=lambda row: row.time, default=None)
    found = None if oldest is None else Unsettled(oldest.id, oldest.time)
    return found, rows[-1].number if len(rows) == most else None


def below(conn: sa.Connection, floor: datetime) -> list[str]:
    """Return the names of the attached months that end at or before the start of another month, the oldest first."""
    first = f"events_{floor:%Y%m}"
    return [name for name in conn.execute(_ATTACHED).scalars() if name < first]


def detach(conn: sa.Connection, name: str, *, archive: bool) -> None:
    """Take a month's events away, beside running ingest: dropped, or kept as a table of their own.

    Not CONCURRENTLY: PostgreSQL refuses that beside a default partition.
    """
    conn.exec_driver_sql(_LOCK)
    conn.exec_driver_sql(f"ALTER TABLE events DETACH PARTITION {name}")
    if archive:
        conn.exec_driver_sql(f"ALTER TABLE {name} RENAME TO {name.replace('events_', 'events_archive_')}")
    else:
        conn.exec_driver_sql(f"DROP TABLE {name}")


def has_default(conn: sa.Connection, before: datetime) -> bool:
    """Say whether the default partition has events before an instant."""
    asked = sa.text("SELECT EXISTS (SELECT FROM events_default WHERE time < :before)")
    return bool(conn.execute(asked, {"before": before}).scalar_one())


def _next(month: datetime) -> datetime:
    return month.replace(year=month.year + month.month // 12, month=month.month % 12 + 1)
