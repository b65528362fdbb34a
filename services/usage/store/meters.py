"""Meters."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONPATH, insert

from services.usage.domain.meter import Aggregation, Filter, Meter, Operator
from services.usage.tables import generations, meters

_GENERATION: Final = sa.select(sa.func.max(generations.c.number)).scalar_subquery()
# Waits for those who freeze a seal, and has others wait: each seal was frozen before the instant that is read then, or
# will be later.
_HOLD_SEALS: Final = sa.text("LOCK TABLE seals IN SHARE MODE")


@dataclass(frozen=True)
class StoredMeter:
    """A meter with its number."""

    number: int
    meter: Meter


def create(conn: sa.Connection, meter: Meter, *, tx: int, now: datetime) -> bool:
    """Insert a meter that counts from `tx` on; say whether it was: not if the id is taken."""
    if meter.count_from is not None:
        conn.execute(_HOLD_SEALS)
    values = {
        "id": meter.id,
        "event_type": meter.event_type,
        "aggregation": meter.aggregation.value,
        "quantity": meter.quantity,
        "attribute": meter.attribute,
        "filters": [[each.attribute, each.operator.value, list(each.values)] for each in meter.filters],
        # As a text: SQLAlchemy's own type would make a path of keys of it.
        "filter": sa.cast(sa.literal(meter.path, sa.Text), JSONPATH),
        "group_by": list(meter.group_by),
        "unit": meter.unit,
        "description": meter.description,
        "create_time": now,
        "from_tx": tx,
        "generation": _GENERATION,
        "count_from": meter.count_from,
        "sealed_before": None if meter.count_from is None else sa.func.clock_timestamp(),
    }
    inserted = insert(meters).values(values).on_conflict_do_nothing().returning(meters.c.number)
    return conn.execute(inserted).one_or_none() is not None


def update(conn: sa.Connection, number: int, unit: str, description: str) -> None:
    """Change what people see of a meter."""
    conn.execute(sa.update(meters).where(meters.c.number == number).values(unit=unit, description=description))


def archive(conn: sa.Connection, number: int, *, tx: int, now: datetime) -> None:
    """Have a meter count no event of transaction `tx` or later. Nothing happens if it is archived."""
    values = {"archive_time": now, "until_tx": tx, "until_generation": _GENERATION}
    conn.execute(sa.update(meters).where(meters.c.number == number, meters.c.until_tx.is_(None)).values(values))


def count_from(conn: sa.Connection, number: int, time: datetime) -> None:
    """Say since when a meter counts events that were stored before it was created."""
    conn.execute(_HOLD_SEALS)
    values = {"count_from": time, "sealed_before": sa.func.clock_timestamp()}
    conn.execute(sa.update(meters).where(meters.c.number == number).values(values))


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
        attribute=row.attribute,
        filters=tuple(Filter(name, Operator(operator), tuple(values)) for name, operator, values in row.filters),
        group_by=tuple(row.group_by),
        description=row.description,
        count_from=row.count_from,
        archive_time=row.archive_time,
    )
    return StoredMeter(row.number, meter)
