"""Month partitions of events. What lies in no month that has one goes to the default partition and stays there."""

from datetime import datetime
from typing import Final

import sqlalchemy as sa

# Attaching waits for running transactions; ingest would wait behind it, so it does not wait long.
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


def _next(month: datetime) -> datetime:
    return month.replace(year=month.year + month.month // 12, month=month.month % 12 + 1)
