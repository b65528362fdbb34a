"""What days cost, as it was last priced."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final, NamedTuple
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from services.usage.domain.cost import DayCost, PeriodPrice
from services.usage.domain.limit import Period
from services.usage.store.customers import PERIOD_END, PERIOD_START
from services.usage.tables import cost_periods, costing, customers, daily_costs, period_totals

_NOW: Final = PERIOD_START.format(customer="c.number", zone="c.time_zone", instant="now()")
_OF: Final = {"customer": "c.number", "zone": "c.time_zone", "instant": "w.period_start"}
_MOVED: Final = sa.text(
    f"""
    SELECT c.number, c.id, c.time_zone, c.revision, w.period_start AS start, {PERIOD_END.format(**_OF)} AS end
    FROM (
        SELECT customer, period_start FROM period_totals
        WHERE (generation, position) > (CAST(:generation AS integer), CAST(CAST(:above AS text) AS xid8))
        UNION
        SELECT n.customer, n.period_start
        FROM (SELECT c.number AS customer, {_NOW} AS period_start FROM customers AS c WHERE c.has_plan) AS n
        WHERE NOT EXISTS (SELECT FROM cost_periods AS k
                          WHERE k.customer = n.customer AND k.period_start = n.period_start)
    ) AS w
    JOIN customers AS c ON c.number = w.customer
    WHERE (w.customer, w.period_start) > (CAST(:customer AS bigint), CAST(:start AS timestamptz))
    ORDER BY w.customer, w.period_start LIMIT :limit
    """  # noqa: S608 - the parts are constants
)
_AT: Final = {"customer": "c.number", "zone": "c.time_zone", "instant": "CAST(:instant AS timestamptz)"}
_PERIOD_AT: Final = sa.text(
    f"SELECT {PERIOD_START.format(**_AT)} AS start, {PERIOD_END.format(**_AT)} AS end "  # noqa: S608
    "FROM customers AS c WHERE c.number = :number"
)


class Place(NamedTuple):
    """A place in the order of transactions."""

    generation: int
    position: int


@dataclass(frozen=True)
class CustomerPeriod:
    """A period of a customer."""

    customer: int
    customer_id: str
    time_zone: str
    revision: int
    period: Period


@dataclass(frozen=True)
class Header:
    """What a period was last priced as. `plan_id` and `currency` are empty without a plan."""

    period: Period
    plan_id: str
    currency: str
    digest: UUID
    as_of: datetime


@dataclass(frozen=True)
class Priced:
    """A period's price by day, from usage with this digest."""

    of: CustomerPeriod
    price: PeriodPrice
    days: Sequence[DayCost]
    digest: UUID
    as_of: datetime


class Key(NamedTuple):
    """A day's place in the list."""

    customer_id: str
    day: date
    period_start: datetime


@dataclass(frozen=True)
class Listed:
    """What a day of a customer cost, all components together."""

    key: Key
    currency: str
    amount: Decimal
    as_of: datetime


def place(conn: sa.Connection) -> Place:
    """Return up to where totals are priced."""
    return Place(*conn.execute(sa.select(costing.c.generation, costing.c.position)).one())


def move(conn: sa.Connection, to: Place) -> None:
    """Store up to where totals are priced."""
    conn.execute(sa.update(costing).values(generation=to.generation, position=to.position))


def moved(conn: sa.Connection, above: Place, behind: tuple[int, datetime], limit: int) -> list[CustomerPeriod]:
    """Return periods whose totals moved above a place, and current ones of customers with a plan that have no price."""
    asked = {
        "generation": above.generation,
        "above": above.position,
        "customer": behind[0],
        "start": behind[1],
        "limit": limit,
    }
    return [
        CustomerPeriod(row.number, row.id, row.time_zone, row.revision, Period(row.start, row.end))
        for row in conn.execute(_MOVED, asked)
    ]


def periods(conn: sa.Connection, customer: int, start: datetime, end: datetime) -> list[Period]:
    """Return the periods of a customer that `[start, end)` touches, in order."""
    found: list[Period] = []
    while not found or found[-1].end < end:
        instant = found[-1].end if found else start
        row = conn.execute(_PERIOD_AT, {"instant": instant, "number": customer}).one()
        found.append(Period(row.start, row.end))
    return found


def meters_used(conn: sa.Connection, customer: int) -> list[int]:
    """Return the numbers of the meters that a customer has totals of."""
    query = sa.select(period_totals.c.meter).distinct().where(period_totals.c.customer == customer)
    return sorted(conn.execute(query).scalars())


def headers(conn: sa.Connection, customer: int, starts: Sequence[datetime]) -> dict[datetime, Header]:
    """Return what periods of a customer were last priced as, by their start."""
    table = cost_periods.c
    query = sa.select(cost_periods).where(table.customer == customer, table.period_start.in_(starts))
    return {
        row.period_start: Header(
            Period(row.period_start, row.period_end), row.plan_id, row.currency, row.digest, row.as_of
        )
        for row in conn.execute(query)
    }


def lock(conn: sa.Connection, customer: int) -> None:
    """Have those who price periods of a customer at the same time wait for one another."""
    conn.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtext("costs"), customer % 2**31)))


def confirm(conn: sa.Connection, customer: int, period_start: datetime, as_of: datetime) -> None:
    """Store that a price still holds."""
    table = cost_periods.c
    mine = (table.customer == customer, table.period_start == period_start)
    conn.execute(sa.update(cost_periods).where(*mine).values(as_of=sa.func.greatest(table.as_of, as_of)))


def store(conn: sa.Connection, priced: Priced) -> None:
    """Write the days that changed, unless newer usage was priced meanwhile."""
    table, of = cost_periods.c, priced.of
    values = {
        "period_end": of.period.end,
        "plan_id": priced.price.plan_id,
        "plan_version": priced.price.plan_version,
        "currency": priced.price.currency,
        "digest": priced.digest,
        "as_of": priced.as_of,
    }
    fresh = insert(cost_periods).values(customer=of.customer, period_start=of.period.start, **values)
    written = fresh.on_conflict_do_update(
        index_elements=["customer", "period_start"], set_=values, where=table.as_of <= priced.as_of
    )
    if conn.execute(written.returning(table.customer)).one_or_none() is None:
        return
    # Periods that were laid out otherwise when they were priced.
    overlapping = (table.period_start < of.period.end, table.period_end > of.period.start)
    conn.execute(
        sa.delete(cost_periods).where(
            table.customer == of.customer, table.period_start != of.period.start, *overlapping
        )
    )
    _replace(conn, of, priced.days)


def usage_by_day(conn: sa.Connection, customer: int, period_start: datetime) -> dict[date, Decimal]:
    """Return what a period's usage cost, without flat fees, by day."""
    table = daily_costs.c
    query = (
        sa.select(table.day, sa.func.sum(table.amount).label("amount"))
        .where(table.customer == customer, table.period_start == period_start, table.meter != "")
        .group_by(table.day)
    )
    return {row.day: row.amount for row in conn.execute(query)}


def before(conn: sa.Connection, customer: int, period_start: datetime) -> Header | None:
    """Return the period that ends where this one begins, if it is priced."""
    table = cost_periods.c
    query = sa.select(table.period_start).where(table.customer == customer, table.period_end == period_start)
    start = conn.execute(query).scalar_one_or_none()
    return None if start is None else headers(conn, customer, [start])[start]


def tell_spike(conn: sa.Connection, customer: int, period_start: datetime) -> bool:
    """Store that a period's spike is told; False if it was before."""
    table = cost_periods.c
    mine = (table.customer == customer, table.period_start == period_start, ~table.spike_told)
    return conn.execute(sa.update(cost_periods).where(*mine).values(spike_told=True)).rowcount == 1


def of_periods(
    conn: sa.Connection, customer: int, starts: Sequence[datetime], first: date, last: date
) -> list[DayCost]:
    """Return what the days from `first` to `last` cost in some periods, by day and component."""
    table = daily_costs.c
    query = (
        sa.select(daily_costs)
        .where(table.customer == customer, table.day >= first, table.day <= last, table.period_start.in_(starts))
        .order_by(table.day, table.period_start, table.component)
    )
    return [
        DayCost(row.day, row.component, row.display_name, row.meter, row.quantity, row.amount)
        for row in conn.execute(query)
    ]


def page(
    conn: sa.Connection, *, customer_id: str, first: date | None, behind: date | None, after: Key | None, limit: int
) -> list[Listed]:
    """Return what days cost, by customer and day, behind the key `after`; days before `behind` only."""
    table = daily_costs.c
    key = (customers.c.id, table.day, table.period_start)
    query = (
        sa.select(*key, cost_periods.c.currency, sa.func.sum(table.amount).label("amount"), cost_periods.c.as_of)
        .join(customers, customers.c.number == table.customer)
        .join(
            cost_periods,
            sa.and_(cost_periods.c.customer == table.customer, cost_periods.c.period_start == table.period_start),
        )
        .group_by(*key, cost_periods.c.currency, cost_periods.c.as_of)
        .having(sa.func.sum(table.amount) != 0)
        .order_by(*key)
        .limit(limit)
    )
    if customer_id:
        query = query.where(customers.c.id == customer_id)
    if first is not None:
        query = query.where(table.day >= first)
    if behind is not None:
        query = query.where(table.day < behind)
    if after is not None:
        query = query.where(sa.tuple_(*key) > sa.tuple_(*after))
    return [
        Listed(Key(row.id, row.day, row.period_start), row.currency, row.amount, row.as_of)
        for row in conn.execute(query)
    ]


def _replace(conn: sa.Connection, of: CustomerPeriod, days: Sequence[DayCost]) -> None:
    table = daily_costs.c
    mine = (table.customer == of.customer, table.period_start == of.period.start)
    stored = {(row.day, row.component): row for row in conn.execute(sa.select(daily_costs).where(*mine))}
    wanted = {(cost.date, cost.component): _row(of, cost) for cost in days}
    gone = [key for key in stored if key not in wanted]
    if gone:
        conn.execute(sa.delete(daily_costs).where(*mine, sa.tuple_(table.day, table.component).in_(gone)))
    changed = [row for key, row in wanted.items() if key not in stored or dict(stored[key]._mapping) != row]  # noqa: SLF001 - SQLAlchemy's public name
    if changed:
        fresh = insert(daily_costs)
        names = ("display_name", "meter", "quantity", "amount")
        overwrite = {name: fresh.excluded[name] for name in names}
        conn.execute(
            fresh.on_conflict_do_update(
                index_elements=["customer", "day", "period_start", "component"], set_=overwrite
            ),
            changed,
        )


def _row(of: CustomerPeriod, cost: DayCost) -> dict[str, Any]:
    return {
        "customer": of.customer,
        "day": cost.date,
        "period_start": of.period.start,
        "component": cost.component,
        "display_name": cost.display_name,
        "meter": cost.meter,
        "quantity": cost.quantity,
        "amount": cost.amount,
    }
