"""Subscriptions."""

from collections.abc import Collection
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from services.billing.domain.subscription import Subscription, SubscriptionState
from services.billing.tables import invoices, subscriptions

_ACTIVE = subscriptions.c.state == SubscriptionState.ACTIVE.value


def add(conn: sa.Connection, subscription: Subscription, *, entitled_until: datetime) -> bool:
    """Insert a subscription; False if the customer has a running one."""
    values = {
        "id": subscription.id,
        "customer_id": subscription.customer_id,
        "plan_id": subscription.plan_id,
        "plan_version": subscription.plan_version,
        "state": subscription.state.value,
        "start_time": subscription.start_time,
        "time_zone": subscription.time_zone,
        "period_number": subscription.period_number,
        "period_end": subscription.current_period.end,
        "entitled_until": entitled_until,
        "create_time": subscription.create_time,
    }
    statement = insert(subscriptions).values(**values).on_conflict_do_nothing().returning(subscriptions.c.id)
    return conn.execute(statement).one_or_none() is not None


def get(conn: sa.Connection, subscription_id: str, *, lock: bool = False) -> Subscription | None:
    """Return the subscription, locked until the transaction ends if asked for."""
    query = sa.select(subscriptions).where(subscriptions.c.id == subscription_id)
    row = conn.execute(query.with_for_update() if lock else query).one_or_none()
    return None if row is None else _subscription(row)


def running(conn: sa.Connection, customer_id: str) -> Subscription | None:
    """Return the customer's running subscription."""
    query = sa.select(subscriptions).where(subscriptions.c.customer_id == customer_id, _ACTIVE)
    row = conn.execute(query).one_or_none()
    return None if row is None else _subscription(row)


def running_of(conn: sa.Connection, customer_ids: Collection[str]) -> dict[str, Subscription]:
    """Return the running subscriptions of customers, by customer."""
    query = sa.select(subscriptions).where(subscriptions.c.customer_id.in_(sorted(customer_ids)), _ACTIVE)
    return {row.customer_id: _subscription(row) for row in conn.execute(query)}


def page(conn: sa.Connection, *, customer_id: str, after: str, limit: int) -> list[Subscription]:
    """Return subscriptions in the order of their creation, behind the id `after`."""
    query = sa.select(subscriptions).where(subscriptions.c.id > after).order_by(subscriptions.c.id).limit(limit)
    if customer_id:
        query = query.where(subscriptions.c.customer_id == customer_id)
    return [_subscription(row) for row in conn.execute(query)]


def due(conn: sa.Connection, *, as_of: datetime, after: str, limit: int) -> list[Subscription]:
    """Return running subscriptions with a period that ended at or before `as_of`, by id, behind the id `after`."""
    query = (
        sa.select(subscriptions)
        .where(_ACTIVE, subscriptions.c.period_end <= as_of, subscriptions.c.id > after)
        .order_by(subscriptions.c.id)
        .limit(limit)
    )
    return [_subscription(row) for row in conn.execute(query)]


def to_extend(conn: sa.Connection, *, before: datetime, limit: int) -> list[Subscription]:
    """Return running subscriptions of whose periods usage knows none that begins at or behind `before`."""
    query = (
        sa.select(subscriptions)
        .where(_ACTIVE, subscriptions.c.entitled_until <= before)
        .order_by(subscriptions.c.entitled_until)
        .limit(limit)
    )
    return [_subscription(row) for row in conn.execute(query)]


def mark_entitled(conn: sa.Connection, subscription_id: str, until: datetime) -> None:
    """Record up to when usage is told of the periods."""
    conn.execute(sa.update(subscriptions).where(subscriptions.c.id == subscription_id).values(entitled_until=until))


def advance(conn: sa.Connection, subscription: Subscription) -> None:
    """Move to the first period that is not invoiced."""
    query = sa.select(invoices.c.period_start).where(
        invoices.c.subscription_id == subscription.id,
        invoices.c.period_start >= subscription.current_period.start,
    )
    billed = set(conn.execute(query).scalars())
    number = subscription.period_number
    while subscription.schedule.start_of(number) in billed:
        number += 1
    conn.execute(
        sa.update(subscriptions)
        .where(subscriptions.c.id == subscription.id)
        .values(period_number=number, period_end=subscription.schedule.period(number).end)
    )


def counts_by_plan(conn: sa.Connection) -> dict[str, int]:
    """Return how many subscriptions run on each plan."""
    query = sa.select(subscriptions.c.plan_id, sa.func.count()).where(_ACTIVE).group_by(subscriptions.c.plan_id)
    return dict(conn.execute(query).all())


def _subscription(row: sa.Row[Any]) -> Subscription:
    return Subscription(
        id=row.id,
        customer_id=row.customer_id,
        plan_id=row.plan_id,
        plan_version=row.plan_version,
        state=SubscriptionState(row.state),
        start_time=row.start_time,
        time_zone=row.time_zone,
        period_number=row.period_number,
        create_time=row.create_time,
    )
