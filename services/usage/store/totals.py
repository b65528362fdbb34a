"""Totals, to look at."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

import sqlalchemy as sa

from services.usage.domain.meter import Aggregation, State
from services.usage.tables import bucket_totals, meters, period_totals


@dataclass(frozen=True)
class Bucket:
    """A bucket's total, of all groups and of what came late too."""

    start: datetime
    state: State


def buckets(conn: sa.Connection, customer: int, meter: int, start: datetime, end: datetime) -> list[Bucket]:
    """Return the buckets with usage that begin in `[start, end)`, in order."""
    table = bucket_totals.c
    query = (
        sa.select(table.start_time, *_state(bucket_totals))
        .where(table.customer == customer, table.meter == meter, table.start_time >= start, table.start_time < end)
        .group_by(table.start_time)
        .order_by(table.start_time)
    )
    return [Bucket(row.start_time, State(int(row.events), row.sum)) for row in conn.execute(query)]


def of_period(conn: sa.Connection, customer: int, meter_id: str, period_start: datetime) -> Decimal:
    """Return a meter's value over a customer's period; 0 without usage, or without such a meter."""
    table = period_totals.c
    query = (
        sa.select(meters.c.aggregation, *_state(period_totals))
        .join(meters, meters.c.number == table.meter)
        .where(table.customer == customer, meters.c.id == meter_id, table.period_start == period_start)
        .group_by(meters.c.number)
    )
    row = conn.execute(query).one_or_none()
    return Decimal(0) if row is None else State(int(row.events), row.sum).value(Aggregation(row.aggregation))


def _state(table: sa.Table) -> tuple[sa.ColumnElement[Any], ...]:
    return sa.func.sum(table.c.count).label("events"), sa.func.sum(table.c.sum).label("sum")
