"""Totals that are set anew, by the rollup alone, after it has added a turn's events.

That is where something else than an event moves them: at new edges, in changed periods, and in what recounts ask for
(corrections: store/corrected.py). Whatever is set is made from raw events below the turn's end.
"""

from typing import Final

import sqlalchemy as sa

from services.kit.db import lift_time_limit
from services.usage.store import states
from services.usage.store.counted import COUNTED
from services.usage.store.customers import PERIOD_END, PERIOD_START
from services.usage.store.rollup import PLAN_FREELY, PLAN_TO_HASH, Turn
from services.usage.store.states import BUCKET, COUNTS, SEAL, TX

_IN_TURN: Final = f"generation = :generation AND tx >= {TX.format('last')} AND tx < {TX.format('upto')}"
_UPTO: Final = f"(CAST(:generation AS integer), {TX.format('upto')})"
_PENDING: Final = sa.text(
    f"""
    SELECT EXISTS (SELECT FROM edges WHERE {_IN_TURN}) AS edges,
           EXISTS (SELECT FROM changes WHERE {_IN_TURN}) AS changes,
           EXISTS (SELECT FROM recount_slices WHERE {_IN_TURN}) AS slices
    """  # noqa: S608 - the parts are constants
)
# Sealed totals stay as they are: of a quarter that is sealed, no bucket is cut; nor where raw events are gone.
_SPAN_EDGES: Final = sa.text(
    f"""
    INSERT INTO spans
    SELECT DISTINCT customer, CAST(NULL AS integer), quarter, quarter + interval '15 minutes' FROM edges AS g
    WHERE {_IN_TURN}
        AND NOT EXISTS (SELECT FROM seals AS s WHERE s.customer = g.customer AND s.sealed_at IS NOT NULL
                            AND s.end_time >= g.quarter + interval '15 minutes')
        AND NOT EXISTS (SELECT FROM floors AS f WHERE f.name = 'raw' AND f.time > g.quarter)
    """  # noqa: S608
)
# Retention may have taken raw events away since they were asked for.
_SPAN_SLICES: Final = sa.text(
    f"""
    INSERT INTO spans
    SELECT customer, meter, greatest(start_time, floor), end_time
    FROM recount_slices
    CROSS JOIN (SELECT coalesce(max(time), '-infinity') AS floor FROM floors WHERE name = 'raw') AS f
    WHERE {_IN_TURN} AND end_time > floor
    """  # noqa: S608
)
_END_SPANS: Final = sa.text("DELETE FROM spans")
# The planner takes a temporary table for a large one, and would read all events there are.
_KNOW_SPANS: Final = sa.text("ANALYZE spans")
_KEY: Final = "customer, meter, start_time, seal, group_key"
_EMPTY_BUCKETS: Final = tuple(
    sa.text(
        f"""
        DELETE FROM {table} AS b USING spans AS s
        WHERE b.customer = s.customer AND b.start_time >= s.start_time AND b.start_time < s.end_time
            AND (s.meter IS NULL OR s.meter = b.meter)
        """  # noqa: S608
    )
    for table in ("bucket_totals", "bucket_values")
)
_FOUND: Final = f"""
    spans AS s
    JOIN events AS e ON e.customer = s.customer AND e.time >= s.start_time AND e.time < s.end_time
    JOIN meters AS m ON (s.meter IS NULL OR s.meter = m.number) AND {COUNTS}
    WHERE (e.generation, e.tx) < {_UPTO}
        AND {COUNTED.format(event="e", generation="CAST(:generation AS integer)", upto=TX.format("upto"))}
"""
_FILL_BUCKETS: Final = sa.text(
    f"""
    INSERT INTO bucket_totals ({_KEY}, group_values, {states.STATE})
    SELECT {_KEY}, group_values, {states.STATE}
    FROM ({states.totals(_FOUND, start=BUCKET, seal=SEAL)}) AS t
    """  # noqa: S608
)
_FILL_VALUES: Final = sa.text(
    f"""
    INSERT INTO bucket_values ({_KEY}, digest)
    SELECT {_KEY}, digest FROM ({states.values(_FOUND, start=BUCKET, seal=SEAL)}) AS u
    """  # noqa: S608
)
# Ranges of whole periods of customers, of one meter or (null) of all.
_CHANGED: Final = f"""
    ranges AS MATERIALIZED (
        SELECT customer, CAST(NULL AS integer) AS meter, min(recount_from) AS start_time,
               CAST('infinity' AS timestamptz) AS end_time
        FROM changes WHERE {_IN_TURN} AND recount_from IS NOT NULL GROUP BY customer
    )
"""  # noqa: S608
_OF_SPAN: Final = {"customer": "c.number", "zone": "c.time_zone"}
_SPANNED: Final = f"""
    ranges AS MATERIALIZED (
        SELECT DISTINCT s.customer, s.meter, {PERIOD_START.format(instant="s.start_time", **_OF_SPAN)} AS start_time,
               {PERIOD_END.format(instant="(s.end_time - interval '1 microsecond')", **_OF_SPAN)} AS end_time
        FROM spans AS s JOIN customers AS c ON c.number = s.customer
    )
"""  # noqa: S608
_DROP_PERIODS: Final = sa.text(
    f"""
    WITH {_CHANGED}
    DELETE FROM period_totals AS t USING ranges AS r WHERE t.customer = r.customer AND t.period_start >= r.start_time
    """  # noqa: S608
)
# What has no events left is 0 and stays: the live counters are to be told.
_EMPTY_PERIODS: Final = sa.text(
    f"""
    WITH {_SPANNED}
    UPDATE period_totals AS t
    SET count = 0, sum = 0, min = NULL, max = NULL, latest_time = NULL, latest_id = NULL, latest_value = NULL,
        generation = CAST(:generation AS integer), position = {TX.format("upto")}
    FROM ranges AS r
    WHERE t.customer = r.customer AND t.period_start >= r.start_time AND t.period_start < r.end_time
        AND (r.meter IS NULL OR r.meter = t.meter)
    """  # noqa: S608
)
_OF_BUCKET: Final = PERIOD_START.format(customer="b.customer", zone="c.time_zone", instant="b.start_time")
_PERIOD_KEY: Final = "customer, meter, period_start, seal, group_key"
_PLACES: Final = f"""
    places AS MATERIALIZED (
        SELECT b.customer, b.meter, b.start_time, {_OF_BUCKET} AS period_start
        FROM (
            SELECT DISTINCT t.customer, t.meter, t.start_time FROM ranges AS r
            JOIN bucket_totals AS t
                ON t.customer = r.customer AND t.start_time >= r.start_time AND t.start_time < r.end_time
                    AND (r.meter IS NULL OR r.meter = t.meter)
        ) AS b
        JOIN customers AS c ON c.number = b.customer
    )
"""  # noqa: S608
# Periods may be those of a later change already, whose own turn is still to come: then one that begins earlier is met.
_FILL_PERIODS: Final = """
    WITH {ranges}, {places}, placed AS (
        SELECT b.*, p.period_start FROM bucket_totals AS b JOIN places AS p USING (customer, meter, start_time)
    )
    INSERT INTO period_totals ({key}, group_values, {state}, generation, position)
    SELECT {key}, group_values, {merged}, CAST(:generation AS integer), {upto}
    FROM placed AS p GROUP BY {key}, group_values
    ON CONFLICT ({key})
    DO UPDATE SET {replaced}, generation = excluded.generation, position = excluded.position
"""
_FILL_UNIQUES: Final = """
    WITH {ranges}, {places}, once AS (
        SELECT DISTINCT ON (v.customer, v.meter, p.period_start, v.digest) v.customer, v.meter, p.period_start, v.seal,
               v.group_key
        FROM bucket_values AS v JOIN places AS p USING (customer, meter, start_time)
        ORDER BY v.customer, v.meter, p.period_start, v.digest, v.seal, v.group_key
    ), counted AS (
        SELECT {key}, count(*) AS count FROM once GROUP BY {key}
    )
    UPDATE period_totals AS t SET sum = u.count FROM counted AS u
    WHERE t.customer = u.customer AND t.meter = u.meter AND t.period_start = u.period_start AND t.seal = u.seal
        AND t.group_key = u.group_key
"""
_NOW: Final = PERIOD_START.format(customer="c.number", zone="c.time_zone", instant="now()")
# All that is set anew is published; limits are judged for the current period and what is ahead of it.
_MOVE_CHANGED: Final = sa.text(
    f"""
    INSERT INTO moved
    SELECT t.customer, t.meter, t.period_start, t.period_start >= {_NOW}, 0, 0
    FROM (SELECT customer, min(recount_from) AS recount_from FROM changes WHERE {_IN_TURN} GROUP BY customer) AS h
    JOIN customers AS c ON c.number = h.customer
    JOIN period_totals AS t ON t.customer = h.customer
    WHERE t.period_start >= least(h.recount_from, {_NOW})
    """  # noqa: S608
)
_MOVE_SPANNED: Final = sa.text(
    f"""
    WITH {_SPANNED}
    INSERT INTO moved
    SELECT DISTINCT t.customer, t.meter, t.period_start, t.period_start >= {_NOW}, 0, CAST(0 AS numeric)
    FROM ranges AS r
    JOIN customers AS c ON c.number = r.customer
    JOIN period_totals AS t ON t.customer = r.customer AND t.period_start >= r.start_time AND t.period_start < r.end_time
        AND (r.meter IS NULL OR r.meter = t.meter)
    """  # noqa: S608
)


def _filled(ranges: str) -> tuple[sa.TextClause, sa.TextClause]:
    parts = {
        "ranges": ranges,
        "places": _PLACES,
        "key": _PERIOD_KEY,
        "state": states.STATE,
        "merged": states.merged("p"),
        "upto": TX.format("upto"),
        "replaced": states.replaced("excluded"),
    }
    return sa.text(_FILL_PERIODS.format(**parts)), sa.text(_FILL_UNIQUES.format(**parts))


_FILL_CHANGED: Final = _filled(_CHANGED)
_FILL_SPANNED: Final = _filled(_SPANNED)


def set_anew(conn: sa.Connection, turn: Turn) -> None:
    """Set the totals that the turn's edges, changes and recounts touch, from raw events below the turn's end."""
    pending = conn.execute(_PENDING, turn.parameters()).one()
    if pending.edges or pending.slices or pending.changes:
        # A quarter of an hour is never parted, however many events a customer has in it.
        lift_time_limit(conn)
    if pending.edges:
        conn.execute(_SPAN_EDGES, turn.parameters())
        _set_buckets(conn, turn)
        conn.execute(_END_SPANS)
    if pending.slices:
        conn.execute(_SPAN_SLICES, turn.parameters())
        set_spans(conn, turn)
    if pending.changes:
        conn.execute(_DROP_PERIODS, turn.parameters())
        for statement in _FILL_CHANGED:
            conn.execute(statement, turn.parameters())
        conn.execute(_MOVE_CHANGED, turn.parameters())


def set_spans(conn: sa.Connection, turn: Turn) -> None:
    """Set the buckets in `spans` and the periods around them, and empty `spans`.

    Those are whole quarters of an hour of customers, none twice, each of one meter or (null) of all.
    """
    _set_buckets(conn, turn)
    conn.execute(_EMPTY_PERIODS, turn.parameters())
    for statement in _FILL_SPANNED:
        conn.execute(statement, turn.parameters())
    conn.execute(_MOVE_SPANNED, turn.parameters())
    conn.execute(_END_SPANS)


def _set_buckets(conn: sa.Connection, turn: Turn) -> None:
    conn.execute(_KNOW_SPANS)
    conn.execute(PLAN_TO_HASH)
    for statement in _EMPTY_BUCKETS:
        conn.execute(statement)
    conn.execute(_FILL_BUCKETS, turn.parameters())
    conn.execute(_FILL_VALUES, turn.parameters())
    conn.execute(PLAN_FREELY)
