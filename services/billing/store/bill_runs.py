"""Bill runs and the periods that they close."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from services.billing.domain.bill_run import BillRun, Failure, Item, ItemState
from services.billing.tables import bill_run_items, bill_runs

MAX_FAILURES_SHOWN: Final = 1_000


def add(conn: sa.Connection, *, bill_run_id: str, as_of: datetime, trace_id: str, now: datetime) -> None:
    """Insert a bill run that has looked at no subscription yet."""
    conn.execute(
        sa.insert(bill_runs).values(id=bill_run_id, as_of=as_of, planned_to="", trace_id=trace_id, create_time=now)
    )


def planned_to(conn: sa.Connection, bill_run_id: str) -> tuple[datetime, str | None]:
    """Lock the run and return its `as_of` and the last subscription looked at, None when all were."""
    query = sa.select(bill_runs.c.as_of, bill_runs.c.planned_to).where(bill_runs.c.id == bill_run_id)
    row = conn.execute(query.with_for_update()).one()
    return row.as_of, row.planned_to


def plan_to(conn: sa.Connection, bill_run_id: str, subscription_id: str | None) -> None:
    """Record the last subscription looked at, None when all were."""
    conn.execute(sa.update(bill_runs).where(bill_runs.c.id == bill_run_id).values(planned_to=subscription_id))


def add_items(conn: sa.Connection, items: Sequence[Item]) -> list[Item]:
    """Insert the items that no run has billed or has open, and return them in the order given."""
    if not items:
        return []
    values = [
        {
            "bill_run_id": item.bill_run_id,
            "customer_id": item.customer_id,
            "subscription_id": item.subscription_id,
            "period_number": item.period_number,
            "period_start": item.period.start,
            "period_end": item.period.end,
            "state": ItemState.OPEN.value,
            "message": "",
        }
        for item in items
    ]
    key = (bill_run_items.c.subscription_id, bill_run_items.c.period_number)
    taken = set(conn.execute(insert(bill_run_items).values(values).on_conflict_do_nothing().returning(*key)).all())
    return [item for item in items if (item.subscription_id, item.period_number) in taken]


def end_item(conn: sa.Connection, item: Item, state: ItemState, *, now: datetime, message: str = "") -> None:
    """Record what became of an item."""
    conn.execute(_item(sa.update(bill_run_items), item).values(state=state.value, message=message, end_time=now))


def get(conn: sa.Connection, bill_run_id: str) -> BillRun | None:
    """Return the run with its progress."""
    found = _runs(conn, sa.select(bill_runs).where(bill_runs.c.id == bill_run_id))
    return found[0] if found else None


def page(conn: sa.Connection, *, before: str | None, limit: int) -> list[BillRun]:
    """Return runs, newest first, older than the id `before`."""
    query = sa.select(bill_runs).order_by(bill_runs.c.id.desc()).limit(limit)
    if before is not None:
        query = query.where(bill_runs.c.id < before)
    return _runs(conn, query)


def _item(statement: sa.Update, item: Item) -> sa.Update:
    return statement.where(
        bill_run_items.c.customer_id == item.customer_id,
        bill_run_items.c.subscription_id == item.subscription_id,
        bill_run_items.c.period_start == item.period.start,
        bill_run_items.c.bill_run_id == item.bill_run_id,
    )


def _runs(conn: sa.Connection, query: sa.Select[Any]) -> list[BillRun]:
    rows = conn.execute(query).all()
    ids = [row.id for row in rows]
    items = bill_run_items.c
    progress = {
        row.bill_run_id: row
        for row in conn.execute(
            sa.select(
                items.bill_run_id,
                sa.func.count().label("due"),
                sa.func.count().filter(items.state == ItemState.INVOICED.value).label("invoiced"),
                sa.func.count().filter(items.state == ItemState.FAILED.value).label("failed"),
                sa.func.max(items.end_time).label("last_end_time"),
            )
            .where(items.bill_run_id.in_(ids))
            .group_by(items.bill_run_id)
        )
    }
    failures = _failures(conn, ids)
    return [_run(row, progress.get(row.id), failures.get(row.id, [])) for row in rows]


def _failures(conn: sa.Connection, ids: list[str]) -> dict[str, list[Failure]]:
    items = bill_run_items.c
    query = (
        sa.select(items.bill_run_id, items.customer_id, items.subscription_id, items.message)
        .where(items.bill_run_id.in_(ids), items.state == ItemState.FAILED.value)
        .order_by(items.bill_run_id, items.subscription_id, items.period_start)
        .limit(MAX_FAILURES_SHOWN)
    )
    found: dict[str, list[Failure]] = {}
    for row in conn.execute(query):
        found.setdefault(row.bill_run_id, []).append(Failure(row.customer_id, row.subscription_id, row.message))
    return found


def _run(row: sa.Row[Any], progress: sa.Row[Any] | None, failures: list[Failure]) -> BillRun:
    return BillRun(
        id=row.id,
        as_of=row.as_of,
        create_time=row.create_time,
        trace_id=row.trace_id,
        planned=row.planned_to is None,
        due=progress.due if progress else 0,
        invoiced=progress.invoiced if progress else 0,
        failed=progress.failed if progress else 0,
        failures=tuple(failures),
        last_end_time=progress.last_end_time if progress else None,
    )
