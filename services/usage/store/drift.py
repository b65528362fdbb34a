"""Whether totals are what a recount of the raw events gives: a few quarters of an hour at a time, in one snapshot.

In a snapshot in which the rollup has come to (generation, last), the buckets hold exactly what events and corrections of
the transactions below it make.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from services.usage.store import states
from services.usage.store.counted import COUNTED, KEPT_FROM
from services.usage.store.places import STRIPE
from services.usage.store.states import BUCKET, COUNTS, SEAL
from services.usage.tables import drifts

# Of a random customer, a quarter with an event and a quarter with a total: either may lack what the other has.
_PICK: Final = sa.text(
    """
    WITH tries AS MATERIALIZED (
        SELECT CAST(floor(random() * (SELECT max(number) FROM customers)) AS bigint) AS least, random() AS part
        FROM generate_series(1, :tries)
    ), chosen AS MATERIALIZED (
        SELECT c.number AS customer, span.oldest + (span.newest - span.oldest) * t.part AS time
        FROM tries AS t
        CROSS JOIN LATERAL (SELECT number FROM customers WHERE number > t.least ORDER BY number LIMIT 1) AS c
        CROSS JOIN LATERAL (
            SELECT min(time) AS oldest, max(time) AS newest FROM events WHERE customer = c.number
        ) AS span
        WHERE span.oldest IS NOT NULL
    ), found AS (
        SELECT t.customer, e.time FROM chosen AS t CROSS JOIN LATERAL (
            SELECT time FROM events WHERE customer = t.customer AND time >= t.time ORDER BY time LIMIT 1
        ) AS e
        UNION ALL
        SELECT t.customer, b.start_time FROM chosen AS t
        CROSS JOIN LATERAL (SELECT number FROM meters WHERE t.customer > 0 ORDER BY random() LIMIT 1) AS m
        CROSS JOIN LATERAL (
            SELECT start_time FROM bucket_totals
            WHERE customer = t.customer AND meter = m.number AND start_time >= t.time ORDER BY start_time LIMIT 1
        ) AS b
    )
    SELECT DISTINCT customer, date_bin('15 minutes', time, TIMESTAMPTZ '2000-01-01') AS quarter FROM found
    """
)
# Left out: what lies below the floor of raw events; quarters with an edge that the rollup has not come to, or does not
# cut since a seal has their totals; meters whose recount is on its way or was given up.
_SAMPLES: Final = f"""
    place AS MATERIALIZED (SELECT generation, last FROM rollups WHERE stripe = {STRIPE}),
    samples AS MATERIALIZED (
        SELECT s.customer, s.quarter
        FROM unnest(CAST(:customers AS bigint[]), CAST(:quarters AS timestamptz[])) AS s (customer, quarter)
        WHERE s.quarter >= {KEPT_FROM}
            AND NOT EXISTS (
                SELECT FROM edges AS g, place AS p WHERE g.customer = s.customer AND g.quarter = s.quarter
                    AND ((g.generation, g.tx) >= (p.generation, p.last)
                         OR EXISTS (SELECT FROM seals AS c WHERE c.customer = g.customer
                                        AND c.end_time >= g.quarter + interval '15 minutes')))
    ), asked AS MATERIALIZED (
        SELECT m.* FROM meters AS m
        WHERE coalesce((SELECT state FROM recounts WHERE meter = m.number ORDER BY number DESC LIMIT 1),
                       CASE WHEN m.count_from IS NULL THEN 'DONE' END) = 'DONE'
            AND NOT EXISTS (SELECT FROM recount_slices AS l, place AS p
                            WHERE l.meter = m.number AND (l.generation, l.tx) >= (p.generation, p.last))
    )
"""  # noqa: S608 - the parts are constants
_FOUND: Final = f"""
    place AS p CROSS JOIN samples AS s
    JOIN events AS e ON e.customer = s.customer
        AND e.time >= s.quarter AND e.time < s.quarter + interval '15 minutes'
    JOIN asked AS m ON {COUNTS}
    WHERE (e.generation, e.tx) < (p.generation, p.last)
        AND {COUNTED.format(event="e", generation="p.generation", upto="p.last")}
"""
_KEY: Final = "customer, meter, start_time, seal, group_key"
_VALUES: Final = "md5(string_agg(CAST(digest AS text), ',' ORDER BY digest))"
_STATE: Final = "count, sum, min, max, latest_time, latest_id, latest_value"
_COMPARE: Final = sa.text(
    f"""
    WITH {_SAMPLES}, counted AS (
        SELECT t.*, v.digests FROM ({states.totals(_FOUND, start=BUCKET, seal=SEAL)}) AS t
        LEFT JOIN (
            SELECT {_KEY}, {_VALUES} AS digests FROM ({states.values(_FOUND, start=BUCKET, seal=SEAL)}) AS u
            GROUP BY {_KEY}
        ) AS v USING ({_KEY})
    ), stored AS (
        SELECT b.*, (SELECT {_VALUES} FROM bucket_values AS v
                     WHERE (v.customer, v.meter, v.start_time, v.seal, v.group_key)
                         = (b.customer, b.meter, b.start_time, b.seal, b.group_key)) AS digests
        FROM samples AS s
        JOIN bucket_totals AS b ON b.customer = s.customer
            AND b.start_time >= s.quarter AND b.start_time < s.quarter + interval '15 minutes'
        WHERE b.meter IN (SELECT number FROM asked)
    )
    SELECT coalesce(c.customer, b.customer) AS customer, k.id AS customer_id,
           date_bin('15 minutes', coalesce(c.start_time, b.start_time), TIMESTAMPTZ '2000-01-01') AS quarter,
           m.id AS meter, coalesce(c.start_time, b.start_time) AS start_time,
           CASE WHEN b.customer IS NOT NULL THEN jsonb_build_object(
               'count', b.count, 'sum', CAST(b.sum AS text), 'min', CAST(b.min AS text), 'max', CAST(b.max AS text),
               'latest', CAST(b.latest_value AS text), 'values', b.digests) END AS stored,
           CASE WHEN c.customer IS NOT NULL THEN jsonb_build_object(
               'count', c.count, 'sum', CAST(c.sum AS text), 'min', CAST(c.min AS text), 'max', CAST(c.max AS text),
               'latest', CAST(c.latest_value AS text), 'values', c.digests) END AS counted
    FROM counted AS c FULL JOIN stored AS b USING ({_KEY})
    JOIN meters AS m ON m.number = coalesce(c.meter, b.meter)
    JOIN customers AS k ON k.number = coalesce(c.customer, b.customer)
    WHERE (c.customer, {", ".join(f"c.{column.strip()}" for column in _STATE.split(","))}, c.digests)
        IS DISTINCT FROM
          (b.customer, {", ".join(f"b.{column.strip()}" for column in _STATE.split(","))}, b.digests)
    ORDER BY 1, 3, 4, 5
    """  # noqa: S608 - the parts are constants
)


@dataclass(frozen=True)
class Sample:
    """A customer's quarter of an hour."""

    customer: int
    quarter: datetime


@dataclass(frozen=True)
class Difference:
    """A total that is not what the raw events give; `stored` or `counted` is None where there is none of it."""

    sample: Sample
    customer_id: str
    meter_id: str
    start: datetime
    stored: dict[str, Any] | None
    counted: dict[str, Any] | None


def one_snapshot(conn: sa.Connection) -> None:
    """Have all that follows in the transaction see the same."""
    conn.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")


def pick(conn: sa.Connection, tries: int) -> list[Sample]:
    """Return random quarters of random customers: two for each try at most."""
    return [Sample(row.customer, row.quarter) for row in conn.execute(_PICK, {"tries": tries})]


def known(conn: sa.Connection, limit: int) -> list[Sample]:
    """Return quarters that differed when they were looked at last, the latest first."""
    query = sa.select(drifts.c.customer, drifts.c.quarter).order_by(drifts.c.found_at.desc()).limit(limit)
    return [Sample(row.customer, row.quarter) for row in conn.execute(query)]


def count(conn: sa.Connection) -> int:
    """Return how many quarters are known to differ."""
    return conn.execute(sa.select(sa.func.count()).select_from(drifts)).scalar_one()


def compare(conn: sa.Connection, samples: Sequence[Sample]) -> list[Difference]:
    """Return what differs in these quarters."""
    values = {"customers": [each.customer for each in samples], "quarters": [each.quarter for each in samples]}
    return [
        Difference(
            Sample(row.customer, row.quarter), row.customer_id, row.meter, row.start_time, row.stored, row.counted
        )
        for row in conn.execute(_COMPARE, values)
    ]


def remember(conn: sa.Connection, sample: Sample, differences: list[dict[str, Any]], now: datetime) -> bool:
    """Store that a quarter differs; say whether that is new."""
    values = {"customer": sample.customer, "quarter": sample.quarter, "differences": differences, "found_at": now}
    stored = insert(drifts).values(values).on_conflict_do_nothing().returning(drifts.c.customer)
    return conn.execute(stored).one_or_none() is not None


def forget(conn: sa.Connection, samples: Sequence[Sample]) -> None:
    """Remove quarters that do not differ any more."""
    places = [(each.customer, each.quarter) for each in samples]
    conn.execute(sa.delete(drifts).where(sa.tuple_(drifts.c.customer, drifts.c.quarter).in_(places)))
