"""Totals, to look at."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

import sqlalchemy as sa

from services.usage.domain.meter import Latest, State
from services.usage.store import states

_BUCKETS: Final = sa.text(
    f"""
    SELECT t.start_time, {states.merged("t")},
           coalesce((SELECT array_agg(DISTINCT v.digest) FROM bucket_values AS v
                     WHERE v.customer = :customer AND v.meter = :meter AND v.start_time = t.start_time), '{{}}') AS digests
    FROM bucket_totals AS t
    WHERE t.customer = :customer AND t.meter = :meter AND t.start_time >= :start AND t.start_time < :end
    GROUP BY t.start_time ORDER BY t.start_time
    """  # noqa: S608 - the parts are constants
)
_OF_PERIOD: Final = sa.text(
    f"""
    SELECT coalesce({states.value("t")}, 0) AS value
    FROM meters AS m JOIN period_totals AS t ON t.meter = m.number
    WHERE m.id = :meter AND t.customer = :customer AND t.period_start = :period_start
    GROUP BY m.number
    """  # noqa: S608
)


@dataclass(frozen=True)
class Bucket:
    """A bucket's total, of all groups and of what came late too."""

    start: datetime
    state: State


def buckets(conn: sa.Connection, customer: int, meter: int, start: datetime, end: datetime) -> list[Bucket]:
    """Return the buckets with usage that begin in `[start, end)`, in order."""
    wanted = {"customer": customer, "meter": meter, "start": start, "end": end}
    return [Bucket(row.start_time, _state(row)) for row in conn.execute(_BUCKETS, wanted)]


def of_period(conn: sa.Connection, customer: int, meter_id: str, period_start: datetime) -> Decimal:
    """Return a meter's value over a customer's period; 0 without usage, or without such a meter."""
    wanted = {"customer": customer, "meter": meter_id, "period_start": period_start}
    value: Decimal | None = conn.execute(_OF_PERIOD, wanted).scalar_one_or_none()
    return Decimal(0) if value is None else Decimal(value)


def _state(row: Any) -> State:
    latest = None if row.latest_time is None else Latest(row.latest_time, row.latest_id, row.latest_value)
    # `row.count` is the method of tuples.
    count = int(row._mapping["count"])  # noqa: SLF001 - SQLAlchemy's public name
    return State(count, row.sum, row.min, row.max, latest, frozenset(row.digests))
