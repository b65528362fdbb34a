"""Thresholds: which shares of a limit a turn of the rollup crossed, and by which event."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

import sqlalchemy as sa

from services.usage.store import states
from services.usage.store.customers import PERIOD_END
from services.usage.store.rollup import Turn
from services.usage.store.states import MATCHES, QUANTITY, TAKEN, TX

# What is known of a key goes on from step to step, and is looked up again by keys of tables: a turn's keys have no
# statistics, and joined with each other they would be compared each with each.
_CROSS: Final = sa.text(
    f"""
    WITH keys AS (
        SELECT k.customer, k.meter, k.period_start, coalesce(l.amount, d.amount) AS amount,
               coalesce(l.thresholds, d.thresholds) AS thresholds
        FROM (SELECT DISTINCT customer, meter, period_start FROM moved WHERE judged) AS k
        JOIN customers AS c ON c.number = k.customer
        JOIN meters AS m ON m.number = k.meter
        LEFT JOIN limits AS l ON l.customer = k.customer AND l.meter = m.id
        LEFT JOIN default_limits AS d ON d.meter = m.id AND NOT c.has_plan
        WHERE l.amount IS NOT NULL OR d.amount IS NOT NULL
    ), used AS (
        SELECT k.*, (SELECT {states.value("t")} FROM period_totals AS t JOIN meters AS m ON m.number = t.meter
                     WHERE t.customer = k.customer AND t.meter = k.meter AND t.period_start = k.period_start
                     GROUP BY m.number) AS value
        FROM keys AS k
    ), crossed AS (
        INSERT INTO thresholds (customer, meter, period_start, threshold, used, amount)
        SELECT u.customer, u.meter, u.period_start, share.percent, u.value, u.amount
        FROM used AS u CROSS JOIN unnest(u.thresholds) AS share (percent)
        WHERE u.value > 0 AND u.value * 100 >= u.amount * share.percent
        ON CONFLICT DO NOTHING
        RETURNING customer, meter, period_start, threshold, used, amount
    )
    SELECT x.customer, c.id AS customer_id, x.meter, m.id AS meter_id,
           CASE WHEN l.kind = 'SOFT' OR c.has_plan THEN l.kind ELSE 'DEFAULT' END AS kind, x.period_start, x.threshold,
           x.used, x.amount
    FROM crossed AS x
    JOIN customers AS c ON c.number = x.customer
    JOIN meters AS m ON m.number = x.meter
    LEFT JOIN limits AS l ON l.customer = x.customer AND l.meter = m.id
    ORDER BY customer_id, meter_id, x.period_start, x.threshold
    """  # noqa: S608 - the parts are constants
)
_END: Final = PERIOD_END.format(customer="c.number", zone="c.time_zone", instant="k.period_start")
_IN_TURN: Final = f"""
    {{0}}.generation = :generation AND {{0}}.tx >= {TX.format("last")} AND {{0}}.tx < {TX.format("upto")}
"""
# Of each crossing the first event of the turn, in its order, with which the total reaches the threshold. What one event
# does to a MIN, an AVG, a LATEST or a count of values depends on the others: of those it is the last event. Where no event
# did, or one without a trace, the last change of the customer.
_CAUSES: Final = sa.text(
    f"""
    WITH crossed AS MATERIALIZED (
        SELECT * FROM unnest(CAST(:customers AS bigint[]), CAST(:meters AS integer[]),
                             CAST(:period_starts AS timestamptz[]), CAST(:thresholds AS integer[]),
                             CAST(:used AS numeric[]), CAST(:amounts AS numeric[]))
            WITH ORDINALITY AS x (customer, meter, period_start, threshold, used, amount, place)
    ), periods AS MATERIALIZED (
        SELECT k.*, {_END} AS period_end
        FROM (SELECT DISTINCT customer, meter, period_start, used FROM crossed) AS k
        JOIN customers AS c ON c.number = k.customer
    ), counted AS (
        SELECT k.customer, k.meter, k.period_start, k.used, e.trace_id, e.span_id, e.tx, e.time, e.digest, m.aggregation,
               CASE m.aggregation WHEN 'COUNT' THEN 1 ELSE coalesce({QUANTITY}, 0) END AS value
        FROM periods AS k
        JOIN meters AS m ON m.number = k.meter
        JOIN events AS e ON e.customer = k.customer AND {TAKEN}
            AND e.time >= k.period_start AND e.time < k.period_end
        WHERE {_IN_TURN.format("e")} AND {MATCHES}
    ), running AS (
        SELECT customer, meter, period_start, trace_id, span_id, tx, time, digest,
               CASE WHEN aggregation IN ('COUNT', 'SUM')
                    THEN used - sum(value) OVER (PARTITION BY customer, meter, period_start)
                         + sum(value) OVER (PARTITION BY customer, meter, period_start
                                            ORDER BY tx, time, digest ROWS UNBOUNDED PRECEDING)
                    WHEN aggregation = 'MAX' THEN value END AS total
        FROM counted
    ), first AS (
        SELECT DISTINCT ON (x.place) x.place, r.trace_id, r.span_id
        FROM crossed AS x JOIN running AS r USING (customer, meter, period_start)
        WHERE r.total IS NULL OR r.total * 100 >= x.amount * x.threshold
        ORDER BY x.place, CASE WHEN r.total IS NULL THEN r.tx END DESC, CASE WHEN r.total IS NULL THEN r.time END DESC,
                 r.tx, r.time, r.digest
    ), changed AS (
        SELECT DISTINCT ON (h.customer) h.customer, h.context
        FROM changes AS h
        WHERE h.customer = ANY(CAST(:customers AS bigint[])) AND {_IN_TURN.format("h")}
        ORDER BY h.customer, h.tx DESC
    )
    SELECT f.trace_id, f.span_id, h.context
    FROM crossed AS x LEFT JOIN first AS f USING (place) LEFT JOIN changed AS h USING (customer)
    ORDER BY x.place
    """  # noqa: S608 - the parts are constants
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


def causes(conn: sa.Connection, turn: Turn, crossings: Sequence[Crossing]) -> list[Cause]:
    """Return, for each crossing, the event that reached the threshold, or the change that lowered it."""
    asked = turn.parameters() | {
        "customers": [each.customer for each in crossings],
        "meters": [each.meter for each in crossings],
        "period_starts": [each.period_start for each in crossings],
        "thresholds": [each.threshold for each in crossings],
        "used": [each.used for each in crossings],
        "amounts": [each.amount for each in crossings],
    }
    return [_cause(row) for row in conn.execute(_CAUSES, asked)]


def _cause(row: Any) -> Cause:
    if row.trace_id is not None:
        return Cause(trace_id=row.trace_id.int, span_id=(row.span_id or 0) % 2**64)
    return Cause(context=row.context)
