"""Meters."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from services.usage.domain.meter import Aggregation, Meter
from services.usage.tables import generations, meters


@dataclass(frozen=True)
class StoredMeter:
    """A meter with its number."""

    number: int
    meter: Meter


def create(conn: sa.Connection, meter: Meter, *, tx: int, now: datetime) -> None:
    """Insert a meter that counts from `tx` on. Nothing happens if the id is taken."""
    values = {
        "id": meter.id,
        "event_type": meter.event_type,
        "aggregation": meter.aggregation.value,
        "quantity": meter.quantity,
        "unit": meter.unit,
        "create_time": now,
        "from_tx": tx,
        "generation": sa.select(sa.func.max(generations.c.number)).scalar_subquery(),
    }
    conn.execute(insert(meters).values(values).on_conflict_do_nothing())


def find(conn: sa.Connection, meter_id: str) -> StoredMeter | None:
    """Return a meter by its id."""
    row = conn.execute(sa.select(meters).where(meters.c.id == meter_id)).one_or_none()
    return None if row is None else _stored(row)


def page(conn: sa.Connection, behind: str, limit: int) -> list[StoredMeter]:
    """Return meters by id."""
    query = sa.select(meters).where(meters.c.id > behind).order_by(meters.c.id).limit(limit)
    return [_stored(row) for row in conn.execute(query)]


def every(conn: sa.Connection) -> list[StoredMeter]:
    """Return all meters."""
    return [_stored(row) for row in conn.execute(sa.select(meters))]


def _stored(row: Any) -> StoredMeter:
    meter = Meter(
        id=row.id,
        event_type=row.event_type,
        aggregation=Aggregation(row.aggregation),
        quantity=row.quantity,
        unit=row.unit,
        create_time=row.create_time,
    )
    return StoredMeter(row.number, meter)
