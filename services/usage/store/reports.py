"""Reports that jobs make."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from services.usage.domain.limit import Period
from services.usage.tables import reports

RUNNING = "RUNNING"
READY = "READY"
FAILED = "FAILED"


@dataclass(frozen=True)
class StoredReport:
    """A report's row. `report` is the encoded message when it is READY."""

    id: str
    period: Period
    state: str
    progress: int
    error: str
    report: bytes


def add(conn: sa.Connection, customer: int, report_id: str, period: Period, now: datetime) -> None:
    """Insert a report that is to be made."""
    values = {"customer": customer, "id": report_id, "start_time": period.start, "end_time": period.end}
    conn.execute(sa.insert(reports).values(**values, state=RUNNING, progress=0, error="", created_at=now))


def lock_customer(conn: sa.Connection, customer: int) -> None:
    """Have those who ask for the same report at the same time wait for one another."""
    conn.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtext("reports"), customer % 2**31)))


def find(conn: sa.Connection, customer: int, report_id: str) -> StoredReport | None:
    """Return a report of a customer."""
    row = conn.execute(
        sa.select(reports).where(reports.c.customer == customer, reports.c.id == report_id)
    ).one_or_none()
    return None if row is None else _stored(row)


def newest(
    conn: sa.Connection, customer: int, period: Period, *, made_since: datetime, running_since: datetime
) -> StoredReport | None:
    """Return the newest report on a range that was made, or asked for and still runs, since an instant."""
    table = reports.c
    query = (
        sa.select(reports)
        .where(
            table.customer == customer,
            table.start_time == period.start,
            table.end_time == period.end,
            sa.or_(
                sa.and_(table.state == RUNNING, table.created_at >= running_since),
                sa.and_(table.state == READY, table.finished_at >= made_since),
            ),
        )
        .order_by(table.id.desc())
        .limit(1)
    )
    row = conn.execute(query).one_or_none()
    return None if row is None else _stored(row)


def running(conn: sa.Connection, customer: int, since: datetime) -> int:
    """Return how many reports of a customer that were asked for since an instant still run."""
    table = reports.c
    mine = (table.customer == customer, table.state == RUNNING, table.created_at >= since)
    count: int = conn.execute(sa.select(sa.func.count()).select_from(reports).where(*mine)).scalar_one()
    return count


def progress(conn: sa.Connection, customer: int, report_id: str, percent: int) -> None:
    """Store how far a report came."""
    _change(conn, customer, report_id, progress=percent)


def finish(conn: sa.Connection, customer: int, report_id: str, report: bytes, now: datetime) -> None:
    """Store a report."""
    _change(conn, customer, report_id, state=READY, progress=100, report=report, finished_at=now)


def fail(conn: sa.Connection, customer: int, report_id: str, error: str, now: datetime) -> None:
    """Store why there is no report."""
    _change(conn, customer, report_id, state=FAILED, error=error, finished_at=now)


def give_up(conn: sa.Connection, before: datetime, error: str, now: datetime) -> int:
    """Store for reports that were asked for before an instant and still run that there are none; return how many."""
    table = reports.c
    lost = sa.update(reports).where(table.created_at < before, table.state == RUNNING)
    return conn.execute(lost.values(state=FAILED, error=error, finished_at=now)).rowcount


def purge(conn: sa.Connection, before: datetime, most: int) -> int:
    """Remove reports that were asked for before an instant, at most so many; return how many."""
    keys = (reports.c.customer, reports.c.id)
    old = sa.select(*keys).where(reports.c.created_at < before).order_by(reports.c.created_at).limit(most)
    return conn.execute(sa.delete(reports).where(sa.tuple_(*keys).in_(old))).rowcount


def _change(conn: sa.Connection, customer: int, report_id: str, **values: Any) -> None:
    """Write a report that runs; how one ended stays so."""
    mine = (reports.c.customer == customer, reports.c.id == report_id, reports.c.state == RUNNING)
    conn.execute(sa.update(reports).where(*mine).values(values))


def _stored(row: Any) -> StoredReport:
    period = Period(row.start_time, row.end_time)
    return StoredReport(row.id, period, row.state, row.progress, row.error, bytes(row.report or b""))
