"""Customers, their keys, limits and periods, as billing told them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, Final
from zoneinfo import ZoneInfo

import orjson
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from services.kit.db import lift_time_limit
from services.kit.errors import InvalidArgument
from services.usage.domain.limit import Limit, LimitKind, Period
from services.usage.tables import (
    changes,
    customer_keys,
    customers,
    default_limits,
    edges,
    generations,
    limits,
    periods,
    rollups,
)


def _first(last: str) -> str:
    """Return an expression for the first instant at which the clock shows the midnight that begins a month.

    Where it shows it twice (Havana, on 1 November 2026), PostgreSQL takes the last one: `last`. The moment before is of
    the same month then, and as much later by the clock as the clock was put back.
    """
    before = f"({last} - interval '1 microsecond')"
    put_back = f"({before} AT TIME ZONE {{zone}}) - ({last} AT TIME ZONE {{zone}}) + interval '1 microsecond'"
    return f"CASE WHEN date_trunc('month', {before}, {{zone}}) = {last} THEN {last} - ({put_back}) ELSE {last} END"


_JUDGING_ALL: Final = timedelta(seconds=60)
_MONTH: Final = _first("date_trunc('month', {instant}, {zone})")
_NEXT_MONTH: Final = _first(
    "((date_trunc('month', {instant} AT TIME ZONE {zone}) + interval '1 month') AT TIME ZONE {zone})"
)
# The period that an instant is in: a billing period, or else the calendar month of the customer's time zone, cut by the
# billing periods around it. `zone` and `instant` are column expressions of the surrounding query.
PERIOD_START: Final = f"""
    (SELECT CASE WHEN p.end_time > {{instant}} THEN p.start_time
                 ELSE greatest({_MONTH}, p.end_time) END
     FROM (SELECT 1) AS one
     LEFT JOIN LATERAL (SELECT start_time, end_time FROM periods
                        WHERE customer = {{customer}} AND start_time <= {{instant}}
                        ORDER BY start_time DESC LIMIT 1) AS p ON true)
"""  # noqa: S608 - the parts are constants
PERIOD_END: Final = f"""
    (SELECT CASE WHEN p.end_time > {{instant}} THEN p.end_time
                 ELSE least({_NEXT_MONTH}, n.start_time) END
     FROM (SELECT 1) AS one
     LEFT JOIN LATERAL (SELECT start_time, end_time FROM periods
                        WHERE customer = {{customer}} AND start_time <= {{instant}}
                        ORDER BY start_time DESC LIMIT 1) AS p ON true
     LEFT JOIN LATERAL (SELECT start_time FROM periods
                        WHERE customer = {{customer}} AND start_time > {{instant}}
                        ORDER BY start_time LIMIT 1) AS n ON true)
"""  # noqa: S608
_OF_CUSTOMER: Final = {"customer": "c.number", "zone": "c.time_zone", "instant": "CAST(:instant AS timestamptz)"}
_FIND: Final = sa.text(
    f"""
    SELECT c.number, c.id, c.revision, c.time_zone, c.has_plan,
           {PERIOD_START.format(**_OF_CUSTOMER)} AS period_start, {PERIOD_END.format(**_OF_CUSTOMER)} AS period_end
    FROM customers AS c WHERE c.id = :id
    """  # noqa: S608 - the parts are constants of this module
)
# A limit that billing told stands before the default; a default is a hard one.
_LIMITS: Final = sa.text(
    """
    SELECT meter, amount, kind, thresholds FROM limits WHERE customer = :number
    UNION ALL
    SELECT d.meter, d.amount, 'HARD', d.thresholds FROM default_limits AS d
    WHERE NOT (SELECT has_plan FROM customers WHERE number = :number)
        AND NOT EXISTS (SELECT FROM limits AS l WHERE l.customer = :number AND l.meter = d.meter)
    """
)
_TELL_ALL_WITHOUT_PLAN: Final = sa.text(
    """
    INSERT INTO changes (customer, tx, generation, context)
    SELECT number, CAST(CAST(:tx AS text) AS xid8), (SELECT max(number) FROM generations), '{}'
    FROM customers WHERE NOT has_plan
    """
)
_RESOLVE: Final = sa.text(
    """
    SELECT 'id' AS kind, id AS name, number FROM customers
    WHERE id IN (SELECT jsonb_array_elements_text(CAST(:ids AS jsonb)))
    UNION ALL
    SELECT 'key', key, customer FROM customer_keys
    WHERE key IN (SELECT jsonb_array_elements_text(CAST(:keys AS jsonb)))
    """
)
_CHANGED: Final = sa.text(
    """
    SELECT CAST(CAST(pg_snapshot_xmin(pg_current_snapshot()) AS text) AS bigint) AS seen,
           (SELECT max(number) FROM generations) AS generation,
           (SELECT coalesce(array_agg(DISTINCT customer), '{}') FROM changes
            WHERE tx >= CAST(CAST(:seen AS text) AS xid8)) AS customers
    """
)


@dataclass(frozen=True)
class Customer:
    """A customer with the period that an instant is in. `limits` are by meter, defaults among them."""

    number: int
    id: str
    revision: int
    time_zone: str
    has_plan: bool
    period: Period
    limits: dict[str, Limit]

    @cached_property
    def month(self) -> str:
        """YYYYMM of the period's start in the customer's time zone: what its live counters are named by."""
        return self.period.start.astimezone(ZoneInfo(self.time_zone)).strftime("%Y%m")


@dataclass(frozen=True)
class Resolved:
    """Numbers of customers by id and by key."""

    ids: dict[str, int]
    keys: dict[str, int]


@dataclass(frozen=True)
class Changed:
    """Which customers changed since a place in the order of transactions, and the place up to which that was asked."""

    seen: int
    generation: int
    customers: frozenset[int]


@dataclass(frozen=True)
class Entitlements:
    """All that billing tells of a customer. See PutEntitlementsRequest."""

    customer_id: str
    keys: tuple[str, ...]
    revision: int
    time_zone: str
    periods: tuple[Period, ...]
    limits: tuple[Limit, ...]
    has_plan: bool


def find(conn: sa.Connection, customer_id: str, instant: datetime) -> Customer | None:
    """Return a customer with its limits and the period of an instant."""
    row = conn.execute(_FIND, {"id": customer_id, "instant": instant}).one_or_none()
    if row is None:
        return None
    found = conn.execute(_LIMITS, {"number": row.number})
    return Customer(
        number=row.number,
        id=row.id,
        revision=row.revision,
        time_zone=row.time_zone,
        has_plan=row.has_plan,
        period=Period(row.period_start, row.period_end),
        limits={
            each.meter: Limit(each.meter, each.amount, LimitKind(each.kind), tuple(each.thresholds)) for each in found
        },
    )


def number(conn: sa.Connection, customer_id: str) -> int | None:
    """Return a customer's number."""
    return conn.execute(sa.select(customers.c.number).where(customers.c.id == customer_id)).scalar_one_or_none()


def lock(conn: sa.Connection, customer_id: str) -> int | None:
    """Lock a customer until the transaction ends, and return its number."""
    query = sa.select(customers.c.number).where(customers.c.id == customer_id).with_for_update()
    return conn.execute(query).scalar_one_or_none()


def hold(conn: sa.Connection, number: int) -> None:
    """Have a customer's periods and limits stay as they are until the transaction ends; others may hold them too."""
    query = sa.select(customers.c.number).where(customers.c.number == number)
    conn.execute(query.with_for_update(read=True))


def resolve(conn: sa.Connection, ids: Sequence[str], keys: Sequence[str]) -> Resolved:
    """Return the numbers of those customers that there are."""
    found = Resolved({}, {})
    names = {"ids": orjson.dumps(ids).decode(), "keys": orjson.dumps(keys).decode()}
    for row in conn.execute(_RESOLVE, names):
        (found.ids if row.kind == "id" else found.keys)[row.name] = row.number
    return found


def changed_since(conn: sa.Connection, seen: int) -> Changed:
    """Return who changed since `seen`: every change of a transaction that ended before is told once at least."""
    row = conn.execute(_CHANGED, {"seen": seen}).one()
    return Changed(row.seen, row.generation, frozenset(row.customers))


def lock_or_create(conn: sa.Connection, customer_id: str) -> tuple[int, int]:
    """Lock a customer, made with revision 0 if it is not there; return its number and revision."""
    fresh = insert(customers).values(id=customer_id, revision=0, time_zone="UTC", has_plan=False)
    conn.execute(fresh.on_conflict_do_nothing())
    query = sa.select(customers.c.number, customers.c.revision).where(customers.c.id == customer_id).with_for_update()
    row = conn.execute(query).one()
    return row.number, row.revision


def update(conn: sa.Connection, number: int, wanted: Entitlements) -> None:
    """Write the customer's own row and its limits."""
    values = {"revision": wanted.revision, "time_zone": wanted.time_zone, "has_plan": wanted.has_plan}
    conn.execute(sa.update(customers).where(customers.c.number == number).values(values))
    conn.execute(sa.delete(limits).where(limits.c.customer == number))
    rows = [
        {
            "customer": number,
            "meter": limit.meter,
            "amount": limit.amount,
            "kind": limit.kind.value,
            "thresholds": list(limit.thresholds),
        }
        for limit in wanted.limits
    ]
    if rows:
        conn.execute(sa.insert(limits), rows)


def default_limits_in_force(conn: sa.Connection) -> tuple[Limit, ...]:
    """Return the limits of customers without a plan, by meter."""
    found = conn.execute(sa.select(default_limits).order_by(default_limits.c.meter))
    return tuple(Limit(row.meter, row.amount, LimitKind.HARD, tuple(row.thresholds)) for row in found)


def replace_default_limits(conn: sa.Connection, wanted: Sequence[Limit], tx: int) -> None:
    """Give customers without a plan these limits, and tell the rollup and the other processes of it.

    All their limits are judged anew: with a great many customers that takes longer than other writes may.
    """
    lift_time_limit(conn, _JUDGING_ALL)
    conn.execute(sa.delete(default_limits))
    rows = [{"meter": each.meter, "amount": each.amount, "thresholds": list(each.thresholds)} for each in wanted]
    if rows:
        conn.execute(sa.insert(default_limits), rows)
    conn.execute(_TELL_ALL_WITHOUT_PLAN, {"tx": tx})


def without_plan(conn: sa.Connection, most: int) -> list[tuple[str, bool]]:
    """Return customers as (id, whether it has no plan): first those without, at most so many."""
    query = sa.select(customers.c.id, ~customers.c.has_plan).order_by(customers.c.has_plan, customers.c.id)
    return [(row[0], row[1]) for row in conn.execute(query.limit(most))]


def replace_keys(conn: sa.Connection, number: int, keys: Sequence[str]) -> str | None:
    """Give the customer these keys and no others. Return a key that another customer has, or None."""
    gone = sa.delete(customer_keys).where(customer_keys.c.customer == number, customer_keys.c.key.not_in(keys))
    conn.execute(gone)
    for key in sorted(keys):
        owner = insert(customer_keys).values(key=key, customer=number)
        conn.execute(owner.on_conflict_do_nothing())
    taken = sa.select(customer_keys.c.key).where(customer_keys.c.key.in_(keys), customer_keys.c.customer != number)
    return conn.execute(taken.limit(1)).scalar_one_or_none()


def check_time_zone(conn: sa.Connection, name: str) -> None:
    """See that the database knows a zone: totals are cut by its clock, and Python knows others.

    Raises:
        InvalidArgument: it does not; the transaction is over.
    """
    try:
        conn.execute(sa.select(sa.func.timezone(name, sa.func.now())))
    except sa.exc.DataError:
        description = f"the database knows no time zone {name!r}; use an IANA name such as Asia/Kolkata"
        raise InvalidArgument.at("time_zone", description, reason="UNKNOWN_TIME_ZONE") from None


def time_zone(conn: sa.Connection, number: int) -> str:
    """Return a customer's time zone."""
    zone: str = conn.execute(sa.select(customers.c.time_zone).where(customers.c.number == number)).scalar_one()
    return zone


def list_periods(conn: sa.Connection, number: int) -> list[Period]:
    """Return a customer's billing periods in order."""
    query = sa.select(periods).where(periods.c.customer == number).order_by(periods.c.start_time)
    return [Period(row.start_time, row.end_time) for row in conn.execute(query)]


def replace_periods(conn: sa.Connection, number: int, wanted: Sequence[Period]) -> None:
    """Give the customer these billing periods and no others."""
    conn.execute(sa.delete(periods).where(periods.c.customer == number))
    rows = [{"customer": number, "start_time": period.start, "end_time": period.end} for period in wanted]
    if rows:
        conn.execute(sa.insert(periods), rows)


def period_start(conn: sa.Connection, number: int, instant: datetime) -> datetime:
    """Return where the period of an instant begins."""
    query = f"SELECT {PERIOD_START.format(**_OF_CUSTOMER)} FROM customers AS c WHERE c.number = :number"  # noqa: S608 - constants
    start: datetime = conn.execute(sa.text(query), {"instant": instant, "number": number}).scalar_one()
    return start


def add_edges(conn: sa.Connection, number: int, boundaries: Sequence[tuple[datetime, datetime]], tx: int) -> None:
    """Insert bucket edges, as (quarter, time); the rollup cuts the quarters there."""
    for quarter, time in sorted(boundaries):
        edge = insert(edges).values(customer=number, quarter=quarter, time=time, tx=tx, generation=_generation())
        conn.execute(edge.on_conflict_do_nothing())


def add_change(
    conn: sa.Connection, number: int, *, tx: int, recount_from: datetime | None, context: dict[str, Any]
) -> None:
    """Tell the rollup and the other processes that a customer changed."""
    values = {"customer": number, "tx": tx, "generation": _generation(), "recount_from": recount_from}
    conn.execute(sa.insert(changes).values(**values, context=context))


def unsettled(conn: sa.Connection, number: int) -> tuple[int, int] | None:
    """Return the last change of a customer's periods whose totals the rollup has still to set, as (generation, tx)."""
    later = sa.tuple_(changes.c.generation, changes.c.tx) >= sa.tuple_(rollups.c.generation, rollups.c.last)
    query = (
        sa.select(changes.c.generation, changes.c.tx)
        .where(changes.c.customer == number, changes.c.recount_from.is_not(None), later)
        .order_by(changes.c.generation.desc(), changes.c.tx.desc())
        .limit(1)
    )
    row = conn.execute(query).one_or_none()
    return None if row is None else (row.generation, row.tx)


def purge_changes(conn: sa.Connection, before: datetime) -> int:
    """Remove changes that were made before an instant, but none that the rollup has still to take in."""
    taken_in = sa.exists().where(
        sa.tuple_(changes.c.generation, changes.c.tx) < sa.tuple_(rollups.c.generation, rollups.c.last)
    )
    return conn.execute(sa.delete(changes).where(changes.c.created_at < before, taken_in)).rowcount


def _generation() -> sa.ScalarSelect[int]:
    return sa.select(sa.func.max(generations.c.number)).scalar_subquery()
