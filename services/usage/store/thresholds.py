"""Thresholds: which shares of a limit a turn of the rollup crossed, and by which event."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final

import sqlalchemy as sa

from services.usage.store import states
from services.usage.store.customers import PERIOD_END
from services.usage.store.rollup import Turn
from services.usage.store.states import MATCHES, QUANTITY, TAKEN, TX

_CROSS: Final = sa.text(
    f"""
    WITH keys AS (
        SELECT k.customer, c.id AS customer_id, k.meter, m.id AS meter_id, k.period_start,
               coalesce(l.amount, d.amount) AS amount, coalesce(l.thresholds, d.thresholds) AS thresholds,
               CASE WHEN l.kind = 'SOFT' OR c.has_plan THEN l.kind ELSE 'DEFAULT' END AS kind
        FROM (SELECT DISTINCT customer, meter, period_start FROM moved WHERE judged) AS k
        JOIN customers AS c ON c.number = k.customer
        JOIN meters AS m ON m.number = k.meter
        LEFT JOIN limits AS l ON l.customer = k.customer AND l.meter = m.id
        LEFT JOIN default_limits AS d ON d.meter = m.id AND NOT c.has_plan
        WHERE l.amount IS NOT NULL OR d.amount IS NOT NULL
    ), used AS (
        SELECT k.customer, k.meter, k.period_start,
               {states.value("t")} AS value
        FROM keys AS k
        JOIN period_totals AS t USING (customer, meter, period_start)
        JOIN meters AS m ON m.number = k.meter
        GROUP BY k.customer, m.number, k.meter, k.period_start
    ), crossed AS (
        INSERT INTO thresholds (customer, meter, period_start, threshold, used, amount)
        SELECT u.customer, u.meter, u.period_start, share.percent, u.value, k.amount
        FROM used AS u
        JOIN keys AS k USING (customer, meter, period_start)
        CROSS JOIN unnest(k.thresholds) AS share (percent)
        WHERE u.value > 0 AND u.value * 100 >= k.amount * share.percent
        ON CONFLICT DO NOTHING
        RETURNING customer, meter, period_start, threshold, used, amount
    )
    SELECT x.customer, k.customer_id, x.meter, k.meter_id, k.kind, x.period_start, x.threshold, x.used, x.amount
    FROM crossed AS x
    JOIN keys AS k USING (customer, meter, period_start)
    ORDER BY k.customer_id, k.meter_id, x.period_start, x.threshold
    """  # noqa: S608 - the parts are constants
)
_END: Final = PERIOD_END.format(customer="c.number", zone="c.time_zone", instant="CAST(:period_start AS timestamptz)")
# The first event of the turn, in its order, with which the total reaches the threshold. What one event does to a MIN, an
# AVG, a LATEST or a count of values depends on the others: of those it is the last event.
_CROSSING_EVENT: Final = sa.text(
    f"""
    WITH counted AS (
        SELECT e.trace_id, e.span_id, e.tx, e.time, e.digest, m.aggregation,
               CASE m.aggregation WHEN 'COUNT' THEN 1 ELSE coalesce({QUANTITY}, 0) END AS value
        FROM customers AS c
        JOIN events AS e ON e.customer = c.number
        JOIN meters AS m ON m.number = :meter AND {TAKEN}
        WHERE c.number = :customer AND e.generation = :generation
            AND e.tx >= {TX.format("last")} AND e.tx < {TX.format("upto")}
            AND e.time >= :period_start AND e.time < {_END} AND {MATCHES}
    ), running AS (
        SELECT trace_id, span_id, tx, time, digest,
               CASE WHEN aggregation IN ('COUNT', 'SUM')
                    THEN CAST(:used AS numeric) - sum(value) OVER ()
                         + sum(value) OVER (ORDER BY tx, time, digest ROWS UNBOUNDED PRECEDING)
                    WHEN aggregation = 'MAX' THEN value END AS total
        FROM counted
    )
    SELECT trace_id, span_id FROM running
    WHERE total IS NULL OR total * 100 >= CAST(:amount AS numeric) * :threshold
    ORDER BY CASE WHEN total IS NULL THEN tx END DESC, CASE WHEN total IS NULL THEN time END DESC, tx, time, digest
    LIMIT 1
    """  # noqa: S608 - the parts are constants
)
_CHANGE: Final = sa.text(
    f"""
    SELECT context FROM changes
    WHERE customer = :customer AND generation = :generation AND tx >= {TX.format("last")} AND tx < {TX.format("upto")}
    ORDER BY tx DESC LIMIT 1
    """  # noqa: S608
)


@dataclass(frozen=True)
class Crossing:
    """A threshold that a total has reached."""

    customer: int
    customer_id: str
    meter: int
    meter_id: str
    kind: str
    period_start: datetime
    threshold: int
    used: Decimal
    amount: Decimal


@dataclass(frozen=True)
class Cause:
    """Where a crossing comes from: the trace and span of an event, or the trace context of a change; all may be empty."""

    trace_id: int = 0
    span_id: int = 0
    context: dict[str, str] | None = None


def cross(conn: sa.Connection) -> list[Crossing]:
    """Store and return the thresholds that the turn's totals have reached and none before had."""
    return [Crossing(**row._mapping) for row in conn.execute(_CROSS)]  # noqa: SLF001 - SQLAlchemy's public name


def cause(conn: sa.Connection, turn: Turn, crossing: Crossing) -> Cause:
    """Return the event that reached the threshold, or the change that lowered it."""
    asked = turn.parameters() | {
        "customer": crossing.customer,
        "meter": crossing.meter,
        "period_start": crossing.period_start,
        "threshold": crossing.threshold,
        "used": crossing.used,
        "amount": crossing.amount,
    }
    event = conn.execute(_CROSSING_EVENT, asked).one_or_none()
    if event is not None and event.trace_id is not None:
        return Cause(trace_id=event.trace_id.int, span_id=(event.span_id or 0) % 2**64)
    context = conn.execute(_CHANGE, turn.parameters() | {"customer": crossing.customer}).scalar_one_or_none()
    return Cause(context=context)
