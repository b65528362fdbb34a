"""Totals that are set anew, by the rollup alone, after it has added a turn's events: at new edges, in changed periods."""

from typing import Final

import sqlalchemy as sa

from services.usage.store.counted import KEPT_FROM
from services.usage.store.customers import PERIOD_START
from services.usage.store.rollup import Turn

_TX: Final = "CAST(CAST(:{} AS text) AS xid8)"
_IN_TURN: Final = f"generation = :generation AND tx >= {_TX.format('last')} AND tx < {_TX.format('upto')}"
_PENDING: Final = sa.text(
    f"""
    SELECT EXISTS (SELECT FROM edges WHERE {_IN_TURN}) AS edges, EXISTS (SELECT FROM changes WHERE {_IN_TURN}) AS changes
    """  # noqa: S608 - the parts are constants
)
# Sealed totals stay as they are: of a quarter that is sealed, no bucket is cut.
_CUT_QUARTERS: Final = sa.text(
    f"""
    WITH quarters AS MATERIALIZED (
        SELECT DISTINCT customer, quarter FROM edges AS g
        WHERE {_IN_TURN} AND g.quarter >= {KEPT_FROM} AND NOT EXISTS (
            SELECT FROM seals AS s WHERE s.customer = g.customer AND s.sealed_at IS NOT NULL
                AND s.end_time >= g.quarter + interval '15 minutes')
    ), recounted AS MATERIALIZED (
        SELECT e.customer, m.number AS meter,
               greatest(q.quarter, (SELECT max(g.time) FROM edges AS g WHERE g.customer = q.customer
                                    AND g.quarter = q.quarter AND g.time <= e.time)) AS start_time,
               e.seal, CAST('00000000-0000-0000-0000-000000000000' AS uuid) AS group_key, count(*) AS count,
               coalesce(sum(CASE WHEN m.aggregation = 'SUM'
                                 THEN CAST(e.quantities -> m.quantity AS numeric) END), 0) AS sum
        FROM quarters AS q
        JOIN events AS e ON e.customer = q.customer AND e.time >= q.quarter
            AND e.time < q.quarter + interval '15 minutes'
        JOIN meters AS m ON m.event_type = e.type AND (m.generation, m.from_tx) <= (e.generation, e.tx)
        WHERE (e.generation, e.tx) < (CAST(:generation AS integer), {_TX.format("upto")})
        GROUP BY 1, 2, 3, 4
    ), emptied AS (
        DELETE FROM bucket_totals AS b USING quarters AS q
        WHERE b.customer = q.customer AND b.start_time >= q.quarter
            AND b.start_time < q.quarter + interval '15 minutes'
            AND NOT EXISTS (SELECT FROM recounted AS r WHERE (r.customer, r.meter, r.start_time, r.seal, r.group_key)
                            = (b.customer, b.meter, b.start_time, b.seal, b.group_key))
    )
    INSERT INTO bucket_totals AS b (customer, meter, start_time, seal, group_key, count, sum)
    SELECT customer, meter, start_time, seal, group_key, count, sum FROM recounted
    ON CONFLICT (customer, meter, start_time, seal, group_key)
    DO UPDATE SET count = excluded.count, sum = excluded.sum
    """  # noqa: S608
)
_CHANGED: Final = f"""
    changed AS MATERIALIZED (
        SELECT customer, min(recount_from) AS recount_from FROM changes WHERE {_IN_TURN} GROUP BY customer
    )
"""  # noqa: S608
_EMPTY_PERIODS: Final = sa.text(
    f"""
    WITH {_CHANGED}
    DELETE FROM period_totals AS t USING changed AS h
    WHERE t.customer = h.customer AND t.period_start >= h.recount_from
    """  # noqa: S608
)
_OF_BUCKET: Final = PERIOD_START.format(customer="b.customer", zone="c.time_zone", instant="b.start_time")
# Periods may be those of a later change already, whose own turn is still to come: then one that begins earlier is met.
_FILL_PERIODS: Final = sa.text(
    f"""
    WITH {_CHANGED}, placed AS (
        SELECT b.*, {_OF_BUCKET} AS period_start
        FROM changed AS h
        JOIN bucket_totals AS b ON b.customer = h.customer AND b.start_time >= h.recount_from
        JOIN customers AS c ON c.number = b.customer
    )
    INSERT INTO period_totals (customer, meter, period_start, seal, group_key, count, sum, generation, position)
    SELECT customer, meter, period_start, seal, group_key, sum(count), sum(sum), CAST(:generation AS integer),
           {_TX.format("upto")}
    FROM placed GROUP BY 1, 2, 3, 4, 5
    ON CONFLICT (customer, meter, period_start, seal, group_key)
    DO UPDATE SET count = excluded.count, sum = excluded.sum,
                  generation = excluded.generation, position = excluded.position
    """  # noqa: S608
)
_NOW: Final = PERIOD_START.format(customer="c.number", zone="c.time_zone", instant="now()")
# All that is set anew is published; limits are judged for the current period and what is ahead of it.
_MOVE: Final = sa.text(
    f"""
    WITH {_CHANGED}
    INSERT INTO moved
    SELECT t.customer, t.meter, t.period_start, t.period_start >= {_NOW}, 0, 0
    FROM changed AS h
    JOIN customers AS c ON c.number = h.customer
    JOIN period_totals AS t ON t.customer = h.customer
    WHERE t.period_start >= least(h.recount_from, {_NOW})
    """  # noqa: S608
)


def set_anew(conn: sa.Connection, turn: Turn) -> None:
    """Set the totals that the turn's edges and changes touch, from raw events below the turn's end."""
    pending = conn.execute(_PENDING, turn.parameters()).one()
    if pending.edges:
        conn.execute(_CUT_QUARTERS, turn.parameters())
    if pending.changes:
        conn.execute(_EMPTY_PERIODS, turn.parameters())
        conn.execute(_FILL_PERIODS, turn.parameters())
        conn.execute(_MOVE, turn.parameters())
