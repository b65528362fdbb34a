"""Totals without corrected events: set by the rollup, in the turn that takes the corrections in.

A correction is never subtracted: the quarters of an hour that corrected events are in are recounted from raw events,
and the periods around them from their buckets. Buckets are those of all usage, also where a period is sealed: sealed
totals are copies that nothing changes, and late usage of a seal is told from the buckets (store/seals.py).
"""

from typing import Final

import sqlalchemy as sa

from services.kit.db import lift_time_limit
from services.usage.store import recount
from services.usage.store.counted import COUNTED
from services.usage.store.rollup import Turn
from services.usage.store.states import COUNTS, MATCHES, SEAL, TX

_IN_TURN: Final = f"k.generation = :generation AND k.tx >= {TX.format('last')} AND k.tx < {TX.format('upto')}"
_FIND: Final = sa.text(f"SELECT k.context FROM corrections AS k WHERE {_IN_TURN} ORDER BY k.tx")  # noqa: S608 - constants
_SPAN: Final = sa.text(
    f"""
    INSERT INTO spans
    SELECT customer, meter, quarter, quarter + interval '15 minutes' FROM (
        SELECT DISTINCT k.customer, m.number AS meter, date_bin('15 minutes', k.time, TIMESTAMPTZ '2000-01-01') AS quarter
        FROM corrections AS k JOIN meters AS m ON m.event_type = k.event_type
        WHERE {_IN_TURN}
    ) AS q
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
    SELECT DISTINCT ON (1, 2, 3, 4) e.customer, m.number, d.day, {SEAL}, e.time, e.trace_id
    FROM unnest(CAST(:customers AS bigint[]), CAST(:days AS date[])) AS d (customer, day)
    JOIN events AS e ON e.customer = d.customer AND e.time >= d.day AND e.time < d.day + 1
    JOIN meters AS m ON {COUNTS}
    WHERE e.sampled AND {MATCHES} AND (e.generation, e.tx) < (CAST(:generation AS integer), {TX.format("upto")})
        AND {COUNTED.format(event="e", generation="CAST(:generation AS integer)", upto=TX.format("upto"))}
    ORDER BY 1, 2, 3, 4, e.generation, e.tx, e.time
    ON CONFLICT DO NOTHING
    """  # noqa: S608
)


def set_anew(conn: sa.Connection, turn: Turn) -> list[dict[str, str]]:
    """Set what the turn's corrections touch, and return for each of them the W3C trace context of who made it.

    The turn's events are added before.
    """
    found = list(conn.execute(_FIND, turn.parameters()).scalars())
    if found:
        # A quarter of an hour cannot be recounted in parts. Whoever waits for this transaction is the rollup itself.
        lift_time_limit(conn)
        conn.execute(_SPAN, turn.parameters())
        recount.set_spans(conn, turn)
        dropped = {(row.customer, row.day) for row in conn.execute(_DROP_SAMPLES, turn.parameters())}
        if dropped:
            customers, days = zip(*sorted(dropped), strict=True)
            conn.execute(_SAMPLE_AGAIN, turn.parameters() | {"customers": list(customers), "days": list(days)})
    return found
