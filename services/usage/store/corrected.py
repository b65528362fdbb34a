"""Totals without corrected events: set by the rollup, in the turn that takes the corrections in.

A correction is never subtracted: the quarters of an hour that corrected events are in are recounted from raw events,
and the periods around them from their buckets. Buckets are those of all usage, also where a period is sealed: sealed
totals are copies that nothing changes, and late usage of a seal is told from the buckets (store/seals.py).
"""

from typing import Final

import sqlalchemy as sa

from services.usage.store.counted import COUNTED
from services.usage.store.customers import PERIOD_END, PERIOD_START
from services.usage.store.rollup import Turn

_TX: Final = "CAST(CAST(:{} AS text) AS xid8)"
_IN_TURN: Final = f"k.generation = :generation AND k.tx >= {_TX.format('last')} AND k.tx < {_TX.format('upto')}"
_COUNT: Final = sa.text(f"SELECT count(*) FROM corrections AS k WHERE {_IN_TURN}")  # noqa: S608 - constants
_QUARTERS: Final = f"""
    quarters AS MATERIALIZED (
        SELECT DISTINCT k.customer, date_bin('15 minutes', k.time, TIMESTAMPTZ '2000-01-01') AS quarter
        FROM corrections AS k WHERE {_IN_TURN}
    )
"""  # noqa: S608
_SET_BUCKETS: Final = sa.text(
    f"""
    WITH {_QUARTERS}, recounted AS MATERIALIZED (
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
            AND {COUNTED.format(event="e", generation="CAST(:generation AS integer)", upto=_TX.format("upto"))}
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
_OF_QUARTER: Final = {"customer": "c.number", "zone": "c.time_zone", "instant": "i.instant"}
_TOUCHED: Final = f"""
    {_QUARTERS}, instants AS (
        SELECT customer, quarter AS instant FROM quarters
        UNION SELECT g.customer, g.time FROM quarters AS q JOIN edges AS g USING (customer, quarter)
    ), touched AS MATERIALIZED (
        SELECT customer, period_start, max(period_end) AS period_end FROM (
            SELECT c.number AS customer, {PERIOD_START.format(**_OF_QUARTER)} AS period_start,
                   {PERIOD_END.format(**_OF_QUARTER)} AS period_end
            FROM instants AS i JOIN customers AS c ON c.number = i.customer
        ) AS p GROUP BY customer, period_start
    )
"""  # noqa: S608
# What has no events left is 0 and stays: the live counters are to be told.
_SET_PERIODS: Final = sa.text(
    f"""
    WITH {_TOUCHED}, recounted AS MATERIALIZED (
        SELECT b.customer, b.meter, p.period_start, b.seal, b.group_key, sum(b.count) AS count, sum(b.sum) AS sum
        FROM touched AS p
        JOIN bucket_totals AS b ON b.customer = p.customer
            AND b.start_time >= p.period_start AND b.start_time < p.period_end
        GROUP BY 1, 2, 3, 4, 5
    ), emptied AS (
        UPDATE period_totals AS t
        SET count = 0, sum = 0, generation = CAST(:generation AS integer), position = {_TX.format("upto")}
        FROM touched AS p
        WHERE t.customer = p.customer AND t.period_start = p.period_start
            AND NOT EXISTS (SELECT FROM recounted AS r WHERE (r.customer, r.meter, r.period_start, r.seal, r.group_key)
                            = (t.customer, t.meter, t.period_start, t.seal, t.group_key))
    )
    INSERT INTO period_totals AS t (customer, meter, period_start, seal, group_key, count, sum, generation, position)
    SELECT customer, meter, period_start, seal, group_key, count, sum, CAST(:generation AS integer),
           {_TX.format("upto")}
    FROM recounted
    ON CONFLICT (customer, meter, period_start, seal, group_key)
    DO UPDATE SET count = excluded.count, sum = excluded.sum,
                  generation = excluded.generation, position = excluded.position
    """  # noqa: S608
)
_NOW: Final = PERIOD_START.format(customer="c.number", zone="c.time_zone", instant="now()")
_MOVE: Final = sa.text(
    f"""
    WITH {_TOUCHED}
    INSERT INTO moved
    SELECT t.customer, t.meter, t.period_start, t.period_start >= {_NOW}, 0, 0
    FROM touched AS p
    JOIN customers AS c ON c.number = p.customer
    JOIN period_totals AS t ON t.customer = p.customer AND t.period_start = p.period_start
    """  # noqa: S608
)
_DROP_SAMPLES: Final = sa.text(
    f"""
    DELETE FROM trace_samples AS s USING corrections AS k
    JOIN events AS e ON e.customer = k.customer AND e.time = k.time AND e.digest = k.digest
    WHERE {_IN_TURN} AND s.customer = e.customer AND s.seal = e.seal AND s.time = e.time AND s.trace_id = e.trace_id
    RETURNING s.customer, s.day
    """  # noqa: S608
)
# Of what is counted on the day, in the order in which the rollup would have taken it.
_SAMPLE_AGAIN: Final = sa.text(
    f"""
    INSERT INTO trace_samples (customer, meter, day, seal, time, trace_id)
    SELECT DISTINCT ON (1, 2, 3, 4) e.customer, m.number, d.day, e.seal, e.time, e.trace_id
    FROM unnest(CAST(:customers AS bigint[]), CAST(:days AS date[])) AS d (customer, day)
    JOIN events AS e ON e.customer = d.customer AND e.time >= d.day AND e.time < d.day + 1
    JOIN meters AS m ON m.event_type = e.type AND (m.generation, m.from_tx) <= (e.generation, e.tx)
    WHERE e.sampled AND (e.generation, e.tx) < (CAST(:generation AS integer), {_TX.format("upto")})
        AND {COUNTED.format(event="e", generation="CAST(:generation AS integer)", upto=_TX.format("upto"))}
    ORDER BY 1, 2, 3, 4, e.generation, e.tx, e.time
    ON CONFLICT DO NOTHING
    """  # noqa: S608
)


def set_anew(conn: sa.Connection, turn: Turn) -> int:
    """Set what the turn's corrections touch, and return how many they are. Added are the turn's events before."""
    found: int = conn.execute(_COUNT, turn.parameters()).scalar_one()
    if found:
        conn.execute(_SET_BUCKETS, turn.parameters())
        conn.execute(_SET_PERIODS, turn.parameters())
        conn.execute(_MOVE, turn.parameters())
        dropped = {(row.customer, row.day) for row in conn.execute(_DROP_SAMPLES, turn.parameters())}
        if dropped:
            customers, days = zip(*sorted(dropped), strict=True)
            conn.execute(_SAMPLE_AGAIN, turn.parameters() | {"customers": list(customers), "days": list(days)})
    return found
