"""Seals: the ends of closed periods, their frozen totals, and what came too late for them."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from services.kit.ids import new_id
from services.usage.domain.instant import EARLIEST
from services.usage.domain.meter import Aggregation, State
from services.usage.store.counted import COUNTED_NOW
from services.usage.tables import seals

_COPY: Final = sa.text(
    """
    INSERT INTO sealed_totals (customer, seal, meter, group_key, group_values, count, sum, trace_ids)
    SELECT b.customer, :seal, b.meter, b.group_key, CAST(min(CAST(b.group_values AS text)) AS jsonb),
           sum(b.count), sum(b.sum),
           coalesce((SELECT array_agg(s.trace_id ORDER BY s.time) FROM trace_samples AS s
                     WHERE s.customer = b.customer AND s.meter = b.meter AND s.seal = 0
                         AND s.time >= :from_time AND s.time < :end_time), '{}')
    FROM bucket_totals AS b
    WHERE b.customer = :customer AND b.seal = 0 AND b.start_time >= :from_time AND b.start_time < :end_time
    GROUP BY b.customer, b.meter, b.group_key
    """
)
# The day's sample may lie outside a period that begins or ends within the day: then the first event's trace stands in.
_FIRST_TRACE: Final = sa.text(
    f"""
    UPDATE sealed_totals AS t
    SET trace_ids = coalesce((
        SELECT ARRAY[e.trace_id] FROM events AS e JOIN meters AS m ON m.event_type = e.type AND m.number = t.meter
        WHERE e.customer = t.customer AND e.seal = 0 AND e.trace_id IS NOT NULL
            AND e.time >= :from_time AND e.time < :end_time AND (m.generation, m.from_tx) <= (e.generation, e.tx)
            AND {COUNTED_NOW.format(event="e")}
        ORDER BY e.time LIMIT 1), '{{}}')
    WHERE t.customer = :customer AND t.seal = :seal AND t.trace_ids = '{{}}'
    """  # noqa: S608 - the parts are constants
)
_SHOWN: Final = "m.id AS meter, m.aggregation, m.event_type, m.unit, t.group_values, t.count AS events, t.sum"
_SEALED: Final = sa.text(
    f"""
    SELECT {_SHOWN}, t.trace_ids FROM sealed_totals AS t JOIN meters AS m ON m.number = t.meter
    WHERE t.customer = :customer AND t.seal = :seal ORDER BY m.id, t.group_key
    """  # noqa: S608 - the parts are constants
)
# A correction takes nothing away from a sealed total. Of the meters of corrected events what was sealed is told anew from
# the buckets, which are without those events; what came late for a seal is in buckets of its own.
_WITH_LATE: Final = sa.text(
    f"""
    WITH corrected AS (
        SELECT DISTINCT s.customer, s.number AS seal, m.number AS meter, s.from_time, s.end_time
        FROM seals AS s
        JOIN corrections AS k ON k.customer = s.customer AND k.seal = s.number AND k.seal <> 0
        JOIN meters AS m ON m.event_type = k.event_type
        WHERE s.customer = :customer AND s.number = :seal
    ), parts AS (
        SELECT f.meter, f.group_key, f.group_values, f.count, f.sum FROM sealed_totals AS f
        WHERE f.customer = :customer AND f.seal = :seal
            AND NOT EXISTS (SELECT FROM corrected AS r WHERE r.meter = f.meter)
        UNION ALL
        SELECT f.meter, f.group_key, f.group_values, coalesce(b.count, 0), coalesce(b.sum, 0)
        FROM corrected AS r
        JOIN sealed_totals AS f USING (customer, seal, meter)
        CROSS JOIN LATERAL (
            SELECT sum(count) AS count, sum(sum) AS sum FROM bucket_totals AS b
            WHERE b.customer = f.customer AND b.meter = f.meter AND b.group_key = f.group_key AND b.seal = 0
                AND b.start_time >= r.from_time AND b.start_time < r.end_time) AS b
        UNION ALL
        SELECT meter, group_key, group_values, count, sum FROM bucket_totals
        WHERE customer = :customer AND seal = :seal AND seal <> 0
    ), t AS (
        SELECT meter, group_key, CAST(min(CAST(group_values AS text)) AS jsonb) AS group_values, sum(count) AS count,
               sum(sum) AS sum
        FROM parts GROUP BY meter, group_key
    )
    SELECT {_SHOWN},
           coalesce((SELECT f.trace_ids FROM sealed_totals AS f WHERE f.customer = :customer AND f.seal = :seal
                         AND f.meter = t.meter AND f.group_key = t.group_key), '{{}}')
           || coalesce((SELECT array_agg(s.trace_id ORDER BY s.time) FROM trace_samples AS s
                        WHERE s.customer = :customer AND s.meter = t.meter AND s.seal = :seal), '{{}}') AS trace_ids
    FROM t JOIN meters AS m ON m.number = t.meter ORDER BY m.id, t.group_key
    """  # noqa: S608
)
_LATE: Final = sa.text(
    """
    SELECT s.number, s.end_time FROM seals AS s
    WHERE s.customer = :customer AND s.end_time < :end_time AND s.sealed_at IS NOT NULL
        AND (EXISTS (SELECT FROM bucket_totals AS b
                     WHERE b.customer = s.customer AND b.seal = s.number AND b.seal <> 0)
            OR EXISTS (SELECT FROM corrections AS k
                       WHERE k.customer = s.customer AND k.seal = s.number AND k.seal <> 0))
    ORDER BY s.end_time
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
    """A meter's total of a seal. `group` has the values of the group-by attributes."""

    meter: str
    aggregation: Aggregation
    event_type: str
    unit: str
    group: dict[str, str]
    state: State
    trace_ids: tuple[str, ...]


@dataclass(frozen=True)
class Late:
    """Sealed and late usage of an earlier seal together."""

    period_end: datetime
    totals: list[Total]


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
    conn.execute(sa.update(seals).where(*mine).values(sealed_at=sa.func.now()))


def totals(conn: sa.Connection, seal: Seal) -> list[Total]:
    """Return the frozen totals."""
    return [_total(row) for row in conn.execute(_SEALED, {"customer": seal.customer, "seal": seal.number})]


def late(conn: sa.Connection, customer: int, before: datetime) -> list[Late]:
    """Return, for each seal that ends before and has late usage or corrections, sealed and all late usage together.

    Without corrected events. States merge; what is returned is cumulative: it replaces what was returned before.
    """
    found = conn.execute(_LATE, {"customer": customer, "end_time": before}).all()
    return [
        Late(
            row.end_time,
            [_total(each) for each in conn.execute(_WITH_LATE, {"customer": customer, "seal": row.number})],
        )
        for row in found
    ]


def _find(conn: sa.Connection, customer: int, end: datetime, *, lock: bool) -> Seal:
    query = sa.select(seals).where(seals.c.customer == customer, seals.c.end_time == end)
    row = conn.execute(query.with_for_update() if lock else query).one()
    return Seal(customer, row.number, row.id, row.from_time, row.end_time, row.sealed_at is not None)


def _total(row: Any) -> Total:
    return Total(
        meter=row.meter,
        aggregation=Aggregation(row.aggregation),
        event_type=row.event_type,
        unit=row.unit,
        group=row.group_values or {},
        state=State(int(row.events), row.sum),
        trace_ids=tuple(trace_id.hex for trace_id in row.trace_ids),
    )
