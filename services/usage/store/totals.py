"""Totals, to look at."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

import orjson
import sqlalchemy as sa

from services.usage.domain.meter import Latest, State
from services.usage.store import states
from services.usage.store.counted import COUNTED
from services.usage.store.customers import PERIOD_END
from services.usage.store.places import STRIPE
from services.usage.store.states import COUNTS

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
_OF_PERIODS: Final = sa.text(
    f"""
    SELECT asked.place, coalesce({states.value("t")}, 0) AS value
    FROM unnest(CAST(:customers AS bigint[]), CAST(:meters AS text[]), CAST(:period_starts AS timestamptz[]))
        WITH ORDINALITY AS asked (customer, meter, period_start, place)
    JOIN meters AS m ON m.id = asked.meter
    JOIN period_totals AS t ON t.customer = asked.customer AND t.meter = m.number
        AND t.period_start = asked.period_start
    GROUP BY asked.place, m.number
    """  # noqa: S608
)
# Where windows are cut within a quarter of an hour, its usage comes from raw events; all else from buckets.
_PLACE: Final = f"place AS MATERIALIZED (SELECT generation, last FROM rollups WHERE stripe = {STRIPE})"  # noqa: S608
_WINDOW: Final = "width_bucket({}, CAST(:cuts AS timestamptz[]))"
_RAW: Final = f"""
    unnest(CAST(:torn AS timestamptz[])) AS q (quarter) CROSS JOIN place AS p
    JOIN events AS e ON e.customer = :customer AND e.time >= greatest(q.quarter, :start)
        AND e.time < least(q.quarter + interval '15 minutes', :end)
    JOIN meters AS m ON m.number = :meter AND {COUNTS}
    WHERE (e.generation, e.tx) < (p.generation, p.last)
        AND {COUNTED.format(event="e", generation="p.generation", upto="p.last")}
"""
_EVENTS: Final = states.events(_RAW, start=_WINDOW.format("e.time"), seal="0")
_IN_RANGE: Final = """
    b.customer = :customer AND b.meter = :meter AND b.start_time >= :start AND b.start_time < :end
    AND NOT date_bin('15 minutes', b.start_time, TIMESTAMPTZ '2000-01-01') = ANY(CAST(:torn AS timestamptz[]))
"""
_GROUPED: Final = """
    grouped AS (
        SELECT p.*, CASE WHEN :is_grouped THEN (
                   SELECT jsonb_object_agg(g.key, g.value) FROM jsonb_each(p.group_values) AS g
                   WHERE g.key = ANY(CAST(:group_by AS text[]))) END AS shown
        FROM parts AS p
        WHERE CAST(:wanted AS jsonb) = '{}' OR p.group_values @> CAST(:wanted AS jsonb)
    )
"""
_STATE: Final = ", ".join(f"b.{column.strip()}" for column in states.STATE.split(","))
_SHOWN: Final = "window_number, shown, GROUPING(window_number) = 1 AS is_total"
_WINDOWS: Final = sa.text(
    f"""
    WITH {_PLACE}, parts AS (
        SELECT {_WINDOW.format("b.start_time")} AS window_number, b.group_values, {_STATE}
        FROM bucket_totals AS b WHERE {_IN_RANGE}
        UNION ALL
        SELECT b.start_time, b.group_values, {_STATE}
        FROM ({states.aggregated(_EVENTS, "start_time, group_values")}) AS b
    ), {_GROUPED}
    SELECT {_SHOWN}, {states.value("t")} AS value
    FROM grouped AS t JOIN meters AS m ON m.number = :meter
    GROUP BY GROUPING SETS ((m.aggregation, window_number, shown), (m.aggregation))
    ORDER BY is_total DESC, window_number, shown LIMIT :most
    """  # noqa: S608
)
_UNIQUE_WINDOWS: Final = sa.text(
    f"""
    WITH {_PLACE}, parts AS (
        SELECT {_WINDOW.format("b.start_time")} AS window_number, b.group_values, v.digest
        FROM bucket_totals AS b JOIN bucket_values AS v USING (customer, meter, start_time, seal, group_key)
        WHERE {_IN_RANGE}
        UNION ALL
        SELECT b.start_time, b.group_values, {states.DIGEST.format("b.text")} FROM ({_EVENTS}) AS b
    ), {_GROUPED}
    SELECT {_SHOWN}, count(DISTINCT digest) AS value
    FROM grouped GROUP BY GROUPING SETS ((window_number, shown), ())
    ORDER BY is_total DESC, window_number, shown LIMIT :most
    """  # noqa: S608
)
_OF_INSTANT: Final = {"customer": "c.number", "zone": "c.time_zone"}
_PERIODS: Final = sa.text(
    f"""
    WITH RECURSIVE c AS MATERIALIZED (SELECT number, time_zone FROM customers WHERE number = :customer),
    walk AS (
        SELECT {PERIOD_END.format(instant="CAST(:start AS timestamptz)", **_OF_INSTANT)} AS time, 1 AS number FROM c
        UNION ALL
        SELECT {PERIOD_END.format(instant="w.time", **_OF_INSTANT)}, w.number + 1
        FROM walk AS w CROSS JOIN c WHERE w.time < :end AND w.number < :most
    )
    SELECT time FROM walk WHERE time < :end ORDER BY time
    """  # noqa: S608
)
_EDGES: Final = sa.text(
    "SELECT time FROM edges WHERE customer = :customer AND time = ANY(CAST(:instants AS timestamptz[]))"
)


@dataclass(frozen=True)
class Cut:
    """How usage is asked for: `[start, end)` by windows that begin at all of `cuts` but the last, and by groups.

    Attributes:
        cuts: where windows are cut, ascending, the range's own start and end among them.
        torn: quarters of an hour that are cut within: they are counted from raw events.
        group_by: of the meter's group-by attributes those that are told apart.
        wanted: only groups with these values of these attributes.
    """

    cuts: Sequence[datetime]
    torn: Sequence[datetime]
    group_by: Sequence[str]
    wanted: Mapping[str, str]


@dataclass(frozen=True)
class Windowed:
    """A window's usage in a group. `number` counts from 0."""

    number: int
    group: dict[str, str]
    value: Decimal


@dataclass(frozen=True)
class Usage:
    """Windows in order, and the value over the whole range: None of no events."""

    windows: list[Windowed]
    total: Decimal | None


@dataclass(frozen=True)
class Bucket:
    """A bucket's total, of all groups and of what came late too."""

    start: datetime
    state: State


def buckets(conn: sa.Connection, customer: int, meter: int, start: datetime, end: datetime) -> list[Bucket]:
    """Return the buckets with usage that begin in `[start, end)`, in order."""
    wanted = {"customer": customer, "meter": meter, "start": start, "end": end}
    return [Bucket(row.start_time, _state(row)) for row in conn.execute(_BUCKETS, wanted)]


def windows(conn: sa.Connection, customer: int, meter: int, cut: Cut, *, is_unique: bool, most: int) -> Usage | None:
    """Return a meter's usage by windows and groups, as of one place of the rollup; None if that are more than `most`."""
    wanted = {
        "customer": customer,
        "meter": meter,
        "start": cut.cuts[0],
        "end": cut.cuts[-1],
        "cuts": list(cut.cuts),
        "torn": list(cut.torn),
        "is_grouped": bool(cut.group_by),
        "group_by": list(cut.group_by),
        "wanted": orjson.dumps(dict(cut.wanted)).decode(),
        # One is the total, and one more tells that there are too many.
        "most": most + 2,
    }
    rows = conn.execute(_UNIQUE_WINDOWS if is_unique else _WINDOWS, wanted).all()
    if len(rows) > most + 1:
        return None
    total = next((Decimal(row.value) for row in rows if row.is_total), None)
    found = [Windowed(row.window_number - 1, row.shown or {}, Decimal(row.value)) for row in rows if not row.is_total]
    return Usage(found, total)


def period_ends(conn: sa.Connection, customer: int, start: datetime, end: datetime, most: int) -> list[datetime]:
    """Return the instants in `(start, end)` at which a customer's billing periods end, at most so many."""
    wanted = {"customer": customer, "start": start, "end": end, "most": most}
    return list(conn.execute(_PERIODS, wanted).scalars())


def edges(conn: sa.Connection, customer: int, instants: Sequence[datetime]) -> set[datetime]:
    """Return those of the instants at which a customer's buckets are cut."""
    return set(conn.execute(_EDGES, {"customer": customer, "instants": list(instants)}).scalars())


def of_period(conn: sa.Connection, customer: int, meter_id: str, period_start: datetime) -> Decimal:
    """Return a meter's value over a customer's period; 0 without usage, or without such a meter."""
    (value,) = of_periods(conn, [(customer, meter_id, period_start)])
    return value


def of_periods(conn: sa.Connection, asked: Sequence[tuple[int, str, datetime]]) -> list[Decimal]:
    """Return the values of many meters, each of a customer's period, given as (customer, meter's id, period's start)."""
    wanted = {
        "customers": [customer for customer, _, _ in asked],
        "meters": [meter_id for _, meter_id, _ in asked],
        "period_starts": [start for _, _, start in asked],
    }
    found = {row.place: Decimal(row.value) for row in conn.execute(_OF_PERIODS, wanted)}
    return [found.get(place, Decimal(0)) for place in range(1, len(asked) + 1)]


def _state(row: Any) -> State:
    latest = None if row.latest_time is None else Latest(row.latest_time, row.latest_id, row.latest_value)
    # `row.count` is the method of tuples.
    count = int(row._mapping["count"])  # noqa: SLF001 - SQLAlchemy's public name
    return State(count, row.sum, row.min, row.max, latest, frozenset(row.digests))
