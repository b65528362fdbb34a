"""Seals: the ends of closed periods, their frozen totals, and what came too late for them."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from services.kit.ids import new_id
from services.usage.domain.instant import EARLIEST
from services.usage.store import states
from services.usage.store.counted import COUNTED_NOW
from services.usage.store.states import COUNTS, MATCHES, STATE
from services.usage.tables import seals

_SEALED_SCOPE: Final = (
    "b.customer = :customer AND b.seal = 0 AND b.start_time >= :from_time AND b.start_time < :end_time"
)
# Buckets are without corrected events; what came late for a seal is in buckets of its own.
_WHOLE_SCOPE: Final = f"(({_SEALED_SCOPE}) OR (b.customer = :customer AND b.seal = :seal AND b.seal <> 0))"


def _scoped(parts: str, scope: str) -> str:
    """Return a query for the states of a seal by meter and group; those of UNIQUE are counted from their values.

    Args:
        parts: a query for states to merge.
        scope: which buckets' values count.
    """
    return f"""
        WITH merged AS (
            SELECT p.meter, p.group_key, CAST(min(CAST(p.group_values AS text)) AS jsonb) AS group_values,
                   {states.merged("p")}
            FROM ({parts}) AS p GROUP BY p.meter, p.group_key
        ), found AS MATERIALIZED (
            SELECT DISTINCT b.meter, b.group_key, b.digest FROM bucket_values AS b WHERE {scope}
        ), of_group AS (
            SELECT meter, group_key, count(*) AS values FROM found GROUP BY 1, 2
        ), own AS (
            SELECT meter, group_key, count(*) AS values FROM (
                SELECT DISTINCT ON (meter, digest) meter, group_key FROM found ORDER BY meter, digest, group_key) AS o
            GROUP BY 1, 2
        )
        SELECT t.meter, t.group_key, t.group_values, t.count, t.sum + coalesce(g.values, 0) AS sum, t.min, t.max,
               t.latest_time, t.latest_id, t.latest_value, coalesce(o.values, 0) AS own_values
        FROM merged AS t
        LEFT JOIN of_group AS g USING (meter, group_key)
        LEFT JOIN own AS o USING (meter, group_key)
    """  # noqa: S608 - the parts are constants


_PART: Final = f"b.meter, b.group_key, b.group_values, {', '.join(f'b.{each.strip()}' for each in STATE.split(','))}"
_COPY: Final = sa.text(
    f"""
    INSERT INTO sealed_totals (customer, seal, meter, group_key, group_values, {STATE}, own_values, trace_ids)
    SELECT :customer, :seal, t.meter, t.group_key, t.group_values, {STATE}, t.own_values,
           coalesce((SELECT array_agg(s.trace_id ORDER BY s.time) FROM trace_samples AS s
                     WHERE s.customer = :customer AND s.meter = t.meter AND s.seal = 0
                         AND s.time >= :from_time AND s.time < :end_time), '{{}}')
    FROM ({_scoped(f"SELECT {_PART} FROM bucket_totals AS b WHERE {_SEALED_SCOPE}", _SEALED_SCOPE)}) AS t
    """  # noqa: S608
)
# The day's sample may lie outside a period that begins or ends within the day: then the first event's trace stands in.
_FIRST_TRACE: Final = sa.text(
    f"""
    UPDATE sealed_totals AS t
    SET trace_ids = coalesce((
        SELECT ARRAY[e.trace_id] FROM events AS e JOIN meters AS m ON m.number = t.meter AND {COUNTS}
        WHERE e.customer = t.customer AND e.seal = 0 AND e.trace_id IS NOT NULL
            AND e.time >= :from_time AND e.time < :end_time AND {MATCHES} AND {COUNTED_NOW.format(event="e")}
        ORDER BY e.time LIMIT 1), '{{}}')
    WHERE t.customer = :customer AND t.seal = :seal AND t.trace_ids = '{{}}'
    """  # noqa: S608 - the parts are constants
)
_SEALED: Final = """
    SELECT f.meter, f.group_key, f.group_values, f.count, f.sum, f.min, f.max, f.latest_time, f.latest_id, f.latest_value,
           f.own_values, f.trace_ids
    FROM sealed_totals AS f WHERE f.customer = :customer AND f.seal = :seal
"""
# A correction takes nothing away from a sealed total: what was sealed is told anew from the buckets. A group with nothing
# left in them is 0.
_PARTS: Final = f"""
    SELECT f.meter, f.group_key, f.group_values, CAST(0 AS bigint) AS count, CAST(0 AS numeric) AS sum,
           CAST(NULL AS numeric) AS min, CAST(NULL AS numeric) AS max, CAST(NULL AS timestamptz) AS latest_time,
           CAST(NULL AS text) COLLATE "C" AS latest_id, CAST(NULL AS numeric) AS latest_value
    FROM sealed_totals AS f WHERE f.customer = :customer AND f.seal = :seal
    UNION ALL
    SELECT {_PART} FROM bucket_totals AS b WHERE {_WHOLE_SCOPE}
"""  # noqa: S608
_WITH_LATE: Final = f"""
    SELECT w.*,
           coalesce((SELECT f.trace_ids FROM sealed_totals AS f WHERE f.customer = :customer AND f.seal = :seal
                         AND f.meter = w.meter AND f.group_key = w.group_key), '{{}}')
           || coalesce((SELECT array_agg(s.trace_id ORDER BY s.time) FROM trace_samples AS s
                        WHERE s.customer = :customer AND s.meter = w.meter AND s.seal = :seal), '{{}}') AS trace_ids
    FROM ({_scoped(_PARTS, _WHOLE_SCOPE)}) AS w
"""  # noqa: S608


def _shown(totals: str) -> sa.TextClause:
    """Return a query for what is told of totals, by meter and group, and of each meter's groups as one."""
    merged = f"CASE WHEN m.aggregation = 'UNIQUE' THEN sum(t.own_values) ELSE {states.value('t')} END"
    return sa.text(
        f"""
        SELECT m.id AS meter, m.aggregation, m.event_type, m.unit, t.group_key IS NULL AS is_merged,
               CAST(min(CAST(t.group_values AS text)) AS jsonb) AS group_values, sum(t.count) AS events,
               coalesce(CASE WHEN t.group_key IS NULL THEN {merged} ELSE {states.value("t")} END, 0) AS value,
               min(t.trace_ids) AS trace_ids
        FROM ({totals}) AS t JOIN meters AS m ON m.number = t.meter
        GROUP BY GROUPING SETS ((m.number, m.id, m.aggregation, m.event_type, m.unit, t.group_key),
                                (m.number, m.id, m.aggregation, m.event_type, m.unit))
        ORDER BY m.id, t.group_key
        """  # noqa: S608
    )


_SHOW_SEALED: Final = _shown(_SEALED)
_SHOW_WITH_LATE: Final = _shown(_WITH_LATE)
# The processes' clocks, which recounts go by, and that of the database differ by less.
_SKEW: Final = timedelta(seconds=10)
# What a recount set after the totals were frozen is not in them: where one was under way, all is told again.
_LATE: Final = sa.text(
    """
    SELECT s.number, s.from_time, s.end_time FROM seals AS s
    WHERE s.customer = :customer AND s.end_time < :end_time AND s.sealed_at IS NOT NULL
        AND (EXISTS (SELECT FROM bucket_totals AS b
                     WHERE b.customer = s.customer AND b.seal = s.number AND b.seal <> 0)
            OR EXISTS (SELECT FROM corrections AS k
                       WHERE k.customer = s.customer AND k.seal = s.number AND k.seal <> 0)
            OR EXISTS (SELECT FROM recounts AS r
                       WHERE r.start_time < s.end_time AND r.end_time > s.from_time
                           AND r.created_at <= s.sealed_at + :skew
                           AND coalesce(r.ended_at, 'infinity') >= s.sealed_at - :skew))
        AND s.end_time > :behind
    ORDER BY s.end_time LIMIT :most
    """
)


@dataclass(frozen=True)
class Seal:
    """A closed period: its totals are those of `[from_time, end)`, from the end of the seal before it."""

    customer: int
    number: int
    id: str
    from_time: datetime
    end: datetime
    sealed: bool


@dataclass(frozen=True)
class Total:
    """A meter's total of a seal. `group` has the values of the group-by attributes; of no events the value is 0."""

    meter: str
    event_type: str
    unit: str
    group: dict[str, str]
    value: Decimal
    events: int
    trace_ids: tuple[str, ...]


@dataclass(frozen=True)
class Totals:
    """The totals of a seal: by meter and group, and by meter over all of its groups."""

    by_group: list[Total]
    merged: list[Total]


@dataclass(frozen=True)
class Late:
    """Sealed and late usage of an earlier seal together."""

    period_end: datetime
    totals: Totals


def create(conn: sa.Connection, customer: int, start: datetime, end: datetime) -> Seal:
    """Return the customer's seal at `end`, made if it is not there; the customer is locked.

    What it covers is decided here: from the latest earlier seal; nothing, if a later seal covers it already.
    """
    earlier = sa.select(sa.func.max(seals.c.end_time)).where(seals.c.customer == customer, seals.c.end_time < end)
    later = sa.select(seals.c.number).where(seals.c.customer == customer, seals.c.end_time > end)
    covered = conn.execute(sa.select(sa.exists(later))).scalar_one()
    from_time = end if covered else conn.execute(earlier).scalar_one() or EARLIEST
    values = {"customer": customer, "end_time": end, "start_time": start, "from_time": from_time, "id": new_id("sea")}
    conn.execute(insert(seals).values(values).on_conflict_do_nothing())
    return _find(conn, customer, end, lock=False)


def freeze(conn: sa.Connection, seal: Seal) -> None:
    """Copy the totals, once. The rollup must have passed every writer that did not see the seal."""
    if _find(conn, seal.customer, seal.end, lock=True).sealed:
        return
    values = {
        "customer": seal.customer,
        "seal": seal.number,
        "from_time": seal.from_time,
        "end_time": seal.end,
    }
    conn.execute(_COPY, values)
    conn.execute(_FIRST_TRACE, values)
    mine = (seals.c.customer == seal.customer, seals.c.end_time == seal.end)
    # The time of this statement, not of the transaction: whoever holds seals up is through by now.
    conn.execute(sa.update(seals).where(*mine).values(sealed_at=sa.func.clock_timestamp()))


def totals(conn: sa.Connection, seal: Seal) -> Totals:
    """Return the frozen totals."""
    return _totals(conn.execute(_SHOW_SEALED, {"customer": seal.customer, "seal": seal.number}))


def late(
    conn: sa.Connection, customer: int, before: datetime, *, behind: datetime = EARLIEST, most: int | None = None
) -> list[Late]:
    """Return, for each seal that ends before and has late usage, sealed and all late usage together.

    Corrections are such, and what a recount that was under way when it was frozen has counted since.

    Without corrected events. States merge; what is returned is cumulative: it replaces what was returned before.

    Args:
        conn: a connection.
        customer: the customer's number.
        before: only seals that end before it.
        behind: only seals that end after it.
        most: at most so many, those that end first.
    """
    wanted = {"customer": customer, "end_time": before, "behind": behind, "most": most, "skew": _SKEW}
    found = conn.execute(_LATE, wanted).all()
    return [
        Late(
            row.end_time,
            _totals(
                conn.execute(
                    _SHOW_WITH_LATE,
                    {"customer": customer, "seal": row.number, "from_time": row.from_time, "end_time": row.end_time},
                )
            ),
        )
        for row in found
    ]


def _find(conn: sa.Connection, customer: int, end: datetime, *, lock: bool) -> Seal:
    query = sa.select(seals).where(seals.c.customer == customer, seals.c.end_time == end)
    row = conn.execute(query.with_for_update() if lock else query).one()
    return Seal(customer, row.number, row.id, row.from_time, row.end_time, row.sealed_at is not None)


def _totals(rows: Iterable[Any]) -> Totals:
    totals = Totals([], [])
    for row in rows:
        total = Total(
            meter=row.meter,
            event_type=row.event_type,
            unit=row.unit,
            group=(not row.is_merged and row.group_values) or {},
            value=Decimal(row.value),
            events=int(row.events),
            trace_ids=tuple(trace_id.hex for trace_id in row.trace_ids),
        )
        (totals.merged if row.is_merged else totals.by_group).append(total)
    return totals
