"""The rollup's statements: events of ended transactions, in the order of those, into bucket and period totals.

All run in one transaction, which moves the place in `rollups` as well: each event counts exactly once, whatever dies.
Rows between the old place and the new belong to transactions that have ended, so that every statement sees the same.
"""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

import sqlalchemy as sa

from services.usage.store import places, states
from services.usage.store.customers import PERIOD_END, PERIOD_START
from services.usage.store.places import STRIPE
from services.usage.store.states import AHEAD, BUCKET, MATCHES, NO_GROUP, PLAIN, QUARTER, TAKEN, TX
from services.usage.tables import rollups

# What one transaction may hold.
MAX_EVENTS_A_TRANSACTION: Final = 10_000
# A correction is taken for so many events, where a turn's size is bounded.
_EVENTS_A_CORRECTION: Final = 4_000

_TEMPORARY: Final = (
    """
    CREATE TEMPORARY TABLE IF NOT EXISTS slice (
        customer bigint, meter integer, start_time timestamptz, seal bigint, group_key uuid,
        count bigint, sum numeric, newest timestamptz, group_values jsonb, min numeric, max numeric,
        latest_time timestamptz, latest_id text COLLATE "C", latest_value numeric, rich boolean NOT NULL DEFAULT false
    ) ON COMMIT DELETE ROWS
    """,
    """
    CREATE TEMPORARY TABLE IF NOT EXISTS slice_values (
        customer bigint, meter integer, start_time timestamptz, seal bigint, group_key uuid, digest uuid
    ) ON COMMIT DELETE ROWS
    """,
    """
    CREATE TEMPORARY TABLE IF NOT EXISTS moved (
        customer bigint, meter integer, period_start timestamptz, judged boolean, count bigint, sum numeric
    ) ON COMMIT DELETE ROWS
    """,
    """
    CREATE TEMPORARY TABLE IF NOT EXISTS spans (
        customer bigint, meter integer, start_time timestamptz, end_time timestamptz
    ) ON COMMIT DELETE ROWS
    """,
)
# The planner's statistics are behind what was just stored: it expects a handful of rows, and would sort them all.
PLAN_TO_HASH: Final = sa.text("SELECT set_config('enable_sort', 'off', true), set_config('work_mem', '64MB', true)")
PLAN_FREELY: Final = sa.text("SET LOCAL enable_sort = on")
_HORIZON: Final = sa.text("SELECT CAST(CAST(pg_snapshot_xmin(pg_current_snapshot()) AS text) AS bigint)")
# Asked before the horizon is: whoever holds that back began before this instant.
_OLDEST_WRITER: Final = sa.text(
    """
    SELECT least(min(xact_start), clock_timestamp()) FROM pg_stat_activity
    WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid()
    """
)
_IS_SAME_CLUSTER: Final = sa.text(
    """
    SELECT (SELECT system_identifier FROM pg_control_system())
        = (SELECT system_identifier FROM generations ORDER BY number DESC LIMIT 1)
    """
)
_IN_SLICE: Final = (
    f"{{0}}.generation = :generation AND {{0}}.tx >= {TX.format('last')} AND {{0}}.tx < {TX.format('upto')}"
)
_PENDING: Final = sa.text(
    f"""
    SELECT EXISTS (SELECT FROM events WHERE {AHEAD}) OR EXISTS (SELECT FROM changes WHERE {AHEAD})
        OR EXISTS (SELECT FROM edges WHERE {AHEAD}) OR EXISTS (SELECT FROM recount_slices WHERE {AHEAD})
        OR EXISTS (SELECT FROM corrections WHERE {AHEAD})
    """  # noqa: S608 - the parts are constants
)
_CUT: Final = sa.text(
    f"""
    SELECT CAST(CAST(e.tx AS text) AS bigint) FROM events AS e WHERE {_IN_SLICE.format("e")}
    ORDER BY e.tx OFFSET :most LIMIT 1
    """  # noqa: S608
)
# Each has a quarter of an hour recounted, and the period around it.
_CUT_CORRECTIONS: Final = sa.text(
    f"""
    SELECT CAST(CAST(k.tx AS text) AS bigint) FROM corrections AS k WHERE {_IN_SLICE.format("k")}
    ORDER BY k.tx OFFSET :most LIMIT 1
    """  # noqa: S608
)
# Which kinds of meters count something in a turn: what there is none of costs nothing.
_KINDS: Final = sa.text(
    f"""
    SELECT coalesce(bool_or({PLAIN}), false) AS plain, coalesce(bool_or(NOT {PLAIN}), false) AS rich,
           coalesce(bool_or(m.aggregation = 'UNIQUE'), false) AS uniques
    FROM meters AS m
    WHERE m.until_tx IS NULL OR (m.until_generation, m.until_tx) > (CAST(:generation AS integer), {TX.format("last")})
    """  # noqa: S608
)
_KEY: Final = "customer, meter, start_time, seal, group_key"
_SUMS: Final = f"""
    {NO_GROUP}, count(*),
    coalesce(sum(CASE WHEN m.aggregation = 'SUM' THEN CAST(e.quantities -> m.quantity AS numeric) END), 0), max(e.time)
"""
_METERS: Final = f"JOIN meters AS m ON {TAKEN}"
_ADD_UP: Final = f"INSERT INTO slice ({_KEY}, count, sum, newest)"
_AGGREGATE: Final = sa.text(
    f"""
    {_ADD_UP}
    SELECT e.customer, m.number, {QUARTER}, e.seal, {_SUMS}
    FROM events AS e {_METERS} AND {PLAIN}
    WHERE {_IN_SLICE.format("e")}
    GROUP BY 1, 2, 3, 4
    """  # noqa: S608
)
_TOUCHES_EDGES: Final = sa.text(
    "SELECT EXISTS (SELECT FROM slice AS s JOIN edges AS g ON g.customer = s.customer AND g.quarter = s.start_time)"
)
_CUT_BUCKET: Final = """
    greatest(q.quarter, (SELECT max(g.time) FROM edges AS g
                         WHERE g.customer = q.customer AND g.quarter = q.quarter AND g.time <= e.time))
"""
_CUT_AT_EDGES: Final = sa.text(
    f"""
    WITH whole AS (
        DELETE FROM slice AS s USING edges AS g WHERE g.customer = s.customer AND g.quarter = s.start_time
        RETURNING s.customer, s.start_time AS quarter
    )
    {_ADD_UP}
    SELECT e.customer, m.number, {_CUT_BUCKET}, e.seal, {_SUMS}
    FROM (SELECT DISTINCT customer, quarter FROM whole) AS q
    JOIN events AS e
        ON e.customer = q.customer AND e.time >= q.quarter AND e.time < q.quarter + interval '15 minutes'
    {_METERS} AND {PLAIN}
    WHERE {_IN_SLICE.format("e")}
    GROUP BY 1, 2, 3, 4
    """  # noqa: S608
)
# What needs an event's attributes, or more than a sum of it.
_RICH: Final = f"events AS e {_METERS} AND NOT {PLAIN} WHERE {_IN_SLICE.format('e')}"
_ADD_UP_RICH: Final = (
    f"INSERT INTO slice ({_KEY}, group_values, {states.STATE}, newest, rich) "
    f"SELECT {_KEY}, group_values, {states.STATE}, newest, true"
)
# Of events at edges or of others: to look for an edge takes a seventh of the time that an event takes.
_AGGREGATE_RICH: Final = {
    has_edges: sa.text(
        f"{_ADD_UP_RICH} FROM ({states.totals(_RICH, start=BUCKET if has_edges else QUARTER, seal='e.seal')}) AS t"
    )
    for has_edges in (False, True)
}
_TAKE_VALUES: Final = {
    has_edges: sa.text(
        "INSERT INTO slice_values " + states.values(_RICH, start=BUCKET if has_edges else QUARTER, seal="e.seal")
    )
    for has_edges in (False, True)
}
_HAS_EDGES: Final = sa.text(
    f"""
    SELECT EXISTS (SELECT FROM events AS e JOIN edges AS g ON g.customer = e.customer AND g.quarter = {QUARTER}
                   WHERE {_IN_SLICE.format("e")})
    """  # noqa: S608
)
_ADD_BUCKETS: Final = sa.text(
    """
    INSERT INTO bucket_totals AS t (customer, meter, start_time, seal, group_key, count, sum)
    SELECT customer, meter, start_time, seal, group_key, count, sum FROM slice WHERE NOT rich ORDER BY 1, 2, 3, 4, 5
    ON CONFLICT (customer, meter, start_time, seal, group_key)
    DO UPDATE SET count = t.count + excluded.count, sum = t.sum + excluded.sum
    """
)
_ADD_RICH_BUCKETS: Final = sa.text(
    f"""
    INSERT INTO bucket_totals AS t ({_KEY}, group_values, {states.STATE})
    SELECT {_KEY}, group_values, {states.STATE} FROM slice WHERE rich ORDER BY {_KEY}
    ON CONFLICT ({_KEY}) DO UPDATE SET {states.added("t", "excluded")}
    """  # noqa: S608
)
_OF_BUCKET: Final = PERIOD_START.format(customer="b.customer", zone="c.time_zone", instant="b.start_time")
_PLACED: Final = f"""
    taken AS MATERIALIZED (
        SELECT * FROM slice WHERE {{only}}
    ), places AS MATERIALIZED (
        SELECT b.customer, b.start_time, {_OF_BUCKET} AS period_start
        FROM (SELECT DISTINCT customer, start_time FROM taken) AS b JOIN customers AS c ON c.number = b.customer
    ), placed AS MATERIALIZED (
        SELECT b.*, p.period_start FROM taken AS b JOIN places AS p USING (customer, start_time)
    )
"""  # noqa: S608
_PERIOD_KEY: Final = "customer, meter, period_start, seal, group_key"
_MOVE: Final = """
    INSERT INTO moved SELECT customer, meter, period_start, true, sum(count), sum(sum) FROM placed GROUP BY 1, 2, 3
"""
_ADD_PERIODS: Final = sa.text(
    f"""
    WITH {_PLACED.format(only="NOT rich")}, counted AS (
        INSERT INTO period_totals AS t ({_PERIOD_KEY}, count, sum, generation, position)
        SELECT {_PERIOD_KEY}, sum(count), sum(sum), CAST(:generation AS integer), {TX.format("upto")}
        FROM placed GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4, 5
        ON CONFLICT ({_PERIOD_KEY})
        DO UPDATE SET count = t.count + excluded.count, sum = t.sum + excluded.sum,
                      generation = excluded.generation, position = excluded.position
    )
    {_MOVE}
    """  # noqa: S608
)
_ADD_RICH_PERIODS: Final = sa.text(
    f"""
    WITH {_PLACED.format(only="rich")}, counted AS (
        INSERT INTO period_totals AS t ({_PERIOD_KEY}, group_values, {states.STATE}, generation, position)
        SELECT {_PERIOD_KEY}, group_values, {states.merged("p")}, CAST(:generation AS integer), {TX.format("upto")}
        FROM placed AS p GROUP BY {_PERIOD_KEY}, group_values ORDER BY {_PERIOD_KEY}
        ON CONFLICT ({_PERIOD_KEY})
        DO UPDATE SET {states.added("t", "excluded")}, generation = excluded.generation, position = excluded.position
    )
    {_MOVE}
    """  # noqa: S608
)
_PERIOD_OF_BUCKET: Final = {"customer": "b.customer", "zone": "c.time_zone", "instant": "b.start_time"}
# The statement sees the values as they were before it: what a period has in none of its buckets is new to it.
_ADD_VALUES: Final = sa.text(
    f"""
    WITH fresh AS (
        INSERT INTO bucket_values ({_KEY}, digest)
        SELECT {_KEY}, digest FROM slice_values ORDER BY customer, meter, digest, start_time, seal, group_key
        ON CONFLICT DO NOTHING
        RETURNING {_KEY}, digest
    ), places AS MATERIALIZED (
        SELECT b.customer, b.start_time, {PERIOD_START.format(**_PERIOD_OF_BUCKET)} AS period_start,
               {PERIOD_END.format(**_PERIOD_OF_BUCKET)} AS period_end
        FROM (SELECT DISTINCT customer, start_time FROM slice_values) AS b JOIN customers AS c ON c.number = b.customer
    ), once AS (
        SELECT DISTINCT ON (f.customer, f.meter, p.period_start, f.digest) f.*, p.period_start, p.period_end
        FROM fresh AS f JOIN places AS p USING (customer, start_time)
        ORDER BY f.customer, f.meter, p.period_start, f.digest, f.seal, f.group_key
    ), new AS (
        SELECT {_PERIOD_KEY}, count(*) AS count FROM once AS o
        WHERE NOT EXISTS (SELECT FROM bucket_values AS v
                          WHERE v.customer = o.customer AND v.meter = o.meter AND v.digest = o.digest
                              AND v.start_time >= o.period_start AND v.start_time < o.period_end)
        GROUP BY {_PERIOD_KEY}
    )
    UPDATE period_totals AS t SET sum = t.sum + n.count FROM new AS n
    WHERE t.customer = n.customer AND t.meter = n.meter AND t.period_start = n.period_start AND t.seal = n.seal
        AND t.group_key = n.group_key
    """  # noqa: S608
)
_SAMPLE: Final = sa.text(
    f"""
    INSERT INTO trace_samples (customer, meter, day, seal, time, trace_id)
    SELECT DISTINCT ON (1, 2, 3, 4) e.customer, m.number, CAST(e.time AT TIME ZONE 'UTC' AS date), e.seal, e.time,
           e.trace_id
    FROM events AS e {_METERS}
    WHERE e.sampled AND {_IN_SLICE.format("e")} AND {MATCHES}
    ORDER BY 1, 2, 3, 4, e.tx, e.time
    ON CONFLICT DO NOTHING
    """  # noqa: S608
)
_MOVED: Final = sa.text(
    f"""
    WITH keys AS (
        SELECT customer, meter, period_start, sum(count) AS count, sum(sum) AS sum FROM moved GROUP BY 1, 2, 3
    )
    SELECT c.id AS customer_id, m.id AS meter_id, k.period_start,
           to_char(k.period_start AT TIME ZONE c.time_zone, 'YYYYMM') AS month,
           coalesce({states.value("t")}, 0) AS value,
           CASE m.aggregation WHEN 'COUNT' THEN k.count WHEN 'SUM' THEN k.sum ELSE 0 END AS added
    FROM keys AS k
    JOIN period_totals AS t USING (customer, meter, period_start)
    JOIN customers AS c ON c.number = k.customer
    JOIN meters AS m ON m.number = k.meter
    GROUP BY c.number, m.number, k.period_start, k.count, k.sum
    """  # noqa: S608
)
_TAKEN: Final = sa.text("SELECT sum(count), avg(extract(epoch FROM clock_timestamp() - newest)) FROM slice")


@dataclass(frozen=True)
class Turn:
    """One turn of the rollup: transactions of a generation from `last` up to, but not including, `upto`.

    `as_of` is set where the turn reaches the horizon: every event acknowledged before it is counted then.
    """

    generation: int
    last: int
    upto: int
    as_of: datetime | None

    def parameters(self) -> dict[str, Any]:
        """Return the statements' parameters."""
        return {"generation": self.generation, "last": self.last, "upto": self.upto}


@dataclass(frozen=True)
class Taken:
    """What a turn took in: events, each as often as meters count it, and the mean age in seconds of the newest."""

    counted: int
    age: float


@dataclass(frozen=True)
class Moved:
    """A period total that moved: its value now, and how much was added to it: 0 where an aggregation adds nothing up."""

    customer_id: str
    meter_id: str
    period_start: datetime
    month: str
    value: Decimal
    added: Decimal


@dataclass(frozen=True)
class Published:
    """How far the rollup and the live counters came."""

    generation: int
    last: int
    published_generation: int
    published: int
    as_of: datetime


def is_same_cluster(conn: sa.Connection) -> bool:
    """Say whether transaction ids count on from those that are stored."""
    return bool(conn.execute(_IS_SAME_CLUSTER).scalar_one())


def has_work(conn: sa.Connection) -> bool:
    """Say, without writing anything, whether something waits for the rollup."""
    place = places.rollup(conn)
    return bool(conn.execute(_PENDING, {"generation": place.generation, "last": place.last}).scalar_one())


def prepare(conn: sa.Connection) -> None:
    """Make the session's temporary tables; they are empty at the start of each transaction."""
    for statement in _TEMPORARY:
        conn.execute(sa.text(statement))


def begin(conn: sa.Connection, most: int, density: int = MAX_EVENTS_A_TRANSACTION) -> Turn | None:
    """Take the rollup's place and say what this turn takes in; None if nothing has ended since the last one.

    Args:
        conn: the turn's transaction.
        most: events in a turn; a single transaction may have more.
        density: events that a transaction is expected to have at most: with few enough transactions ahead no slice is
            too large, and they need not be counted.
    """
    prepare(conn)
    mine = sa.select(rollups.c.generation, rollups.c.last).where(rollups.c.stripe == STRIPE).with_for_update()
    generation, last = conn.execute(mine).one()
    as_of = conn.execute(_OLDEST_WRITER).scalar_one()
    horizon = conn.execute(_HORIZON).scalar_one()
    if horizon <= last:
        return None
    whole = Turn(generation, last, horizon, as_of)
    corrections = {"most": max(most // _EVENTS_A_CORRECTION, 1)}
    cuts = [conn.execute(_CUT_CORRECTIONS, whole.parameters() | corrections).scalar_one_or_none()]
    if (horizon - last) * density > most:
        cuts.append(conn.execute(_CUT, whole.parameters() | {"most": most}).scalar_one_or_none())
    found = [cut for cut in cuts if cut is not None]
    return Turn(generation, last, max(min(found), last + 1), None) if found else whole


def add(conn: sa.Connection, turn: Turn) -> Taken:
    """Add the turn's events to the totals."""
    kinds = conn.execute(_KINDS, turn.parameters()).one()
    conn.execute(PLAN_TO_HASH)
    if kinds.plain:
        conn.execute(_AGGREGATE, turn.parameters())
    conn.execute(PLAN_FREELY)
    if kinds.plain and conn.execute(_TOUCHES_EDGES).scalar_one():
        conn.execute(_CUT_AT_EDGES, turn.parameters())
    has_edges = bool(kinds.rich and conn.execute(_HAS_EDGES, turn.parameters()).scalar_one())
    if kinds.rich:
        conn.execute(PLAN_TO_HASH)
        conn.execute(_AGGREGATE_RICH[has_edges], turn.parameters())
        conn.execute(PLAN_FREELY)
    counted, age = conn.execute(_TAKEN).one()
    if counted is None:
        return Taken(0, 0.0)
    # What is only added up needs no statement that merges whole states.
    if kinds.plain:
        conn.execute(_ADD_BUCKETS)
        conn.execute(_ADD_PERIODS, turn.parameters())
    if kinds.rich:
        conn.execute(_ADD_RICH_BUCKETS)
        conn.execute(_ADD_RICH_PERIODS, turn.parameters())
    if kinds.uniques:
        conn.execute(_TAKE_VALUES[has_edges], turn.parameters())
        conn.execute(_ADD_VALUES)
    conn.execute(_SAMPLE, turn.parameters())
    return Taken(int(counted), float(age))


def moved(conn: sa.Connection) -> list[Moved]:
    """Return the period totals that the turn moved."""
    return [Moved(**row._mapping) for row in conn.execute(_MOVED)]  # noqa: SLF001 - SQLAlchemy's public name


def advance(conn: sa.Connection, turn: Turn) -> None:
    """Move the place."""
    values: dict[str, Any] = {"last": turn.upto}
    if turn.as_of is not None:
        values["as_of"] = sa.func.greatest(rollups.c.as_of, turn.as_of)
    conn.execute(sa.update(rollups).where(rollups.c.stripe == STRIPE).values(values))
