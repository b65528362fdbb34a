"""Reports that jobs make."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from services.usage.domain.limit import Period
from services.usage.tables import customers, reports

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


def newest(conn: sa.Connection, customer: int, period: Period, since: datetime) -> StoredReport | None:
    """Return the newest report on a range that runs, or was made, since an instant and did not fail."""
    table = reports.c
    query = (
        sa.select(reports)
        .where(
            table.customer == customer,
            table.start_time == period.start,
            table.end_time == period.end,
            table.state != FAILED,
            sa.or_(table.state == RUNNING, table.finished_at >= since),
        )
        .order_by(table.id.desc())
        .limit(1)
    )
    row = conn.execute(query).one_or_none()
    return None if row is None else _stored(row)


def customer_of(conn: sa.Connection, report_id: str) -> str | None:
    """Return the id of the customer whose report it is."""
    query = sa.select(customers.c.id).join(reports, reports.c.customer == customers.c.number)
    return conn.execute(query.where(reports.c.id == report_id)).scalar_one_or_none()


def progress(conn: sa.Connection, report_id: str, percent: int) -> None:
    """Store how far a report came."""
    conn.execute(sa.update(reports).where(reports.c.id == report_id).values(progress=percent))


def finish(conn: sa.Connection, report_id: str, report: bytes, now: datetime) -> None:
    """Store a report."""
    _end(conn, report_id, state=READY, progress=100, report=report, finished_at=now)


def fail(conn: sa.Connection, report_id: str, error: str, now: datetime) -> None:
    """Store why there is no report."""
    _end(conn, report_id, state=FAILED, error=error, finished_at=now)


def purge(conn: sa.Connection, before: datetime) -> None:
    """Remove reports that were asked for before an instant."""
    conn.execute(sa.delete(reports).where(reports.c.created_at < before))


def _end(conn: sa.Connection, report_id: str, **values: Any) -> None:
    conn.execute(sa.update(reports).where(reports.c.id == report_id).values(values))


def _stored(row: Any) -> StoredReport:
    period = Period(row.start_time, row.end_time)
    return StoredReport(row.id, period, row.state, row.progress, row.error, bytes(row.report or b""))
