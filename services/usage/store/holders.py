"""Who holds the rollup's horizon back: transactions of any database of the server that have an id and do not end."""

from datetime import timedelta
from typing import Final

import sqlalchemy as sa

from services.usage.metrics import Holder

_TERMINATE: Final = sa.text(
    """
    SELECT application_name, pg_terminate_backend(pid)
    FROM pg_stat_activity
    WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid() AND datname = current_database()
        AND xact_start < clock_timestamp() - :age
        AND (application_name = 'usage-server' OR application_name = 'usage-worker'
             AND (state <> 'active' OR coalesce(wait_event_type, '') IN ('Client', 'Lock')))
    """
)
_HOLDERS: Final = sa.text(
    """
    SELECT datname, application_name, extract(epoch FROM clock_timestamp() - min(xact_start)) AS seconds
    FROM pg_stat_activity
    WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid() AND xact_start < clock_timestamp() - :age
    GROUP BY datname, application_name
    UNION ALL
    SELECT database, format('prepared transaction %L', gid), extract(epoch FROM clock_timestamp() - prepared)
    FROM pg_prepared_xacts WHERE prepared < clock_timestamp() - :age
    """
)
_OLDEST_SNAPSHOT: Final = sa.text(
    """
    SELECT coalesce(extract(epoch FROM clock_timestamp() - min(xact_start)), 0) FROM pg_stat_activity
    WHERE backend_xmin IS NOT NULL AND pid <> pg_backend_pid()
    """
)


def terminate(conn: sa.Connection, age: timedelta) -> list[str]:
    """End our own transactions that are older: a stalled COPY heeds neither timeouts nor cancels. Return whose.

    A worker's statement that works is spared: a turn that sets very many events anew takes its time, maybe beyond its
    process's lease, and would never come through if the next process ended it.
    """
    return [row.application_name for row in conn.execute(_TERMINATE, {"age": age})]


def holders(conn: sa.Connection, age: timedelta) -> list[Holder]:
    """Return whose transactions are older, by database and application; prepared ones by their names."""
    found = conn.execute(_HOLDERS, {"age": age})
    return [Holder(row.datname or "", row.application_name or "", float(row.seconds)) for row in found]


def oldest_snapshot(conn: sa.Connection) -> float:
    """Return the age of the server's oldest snapshot in seconds."""
    return float(conn.execute(_OLDEST_SNAPSHOT).scalar_one())
