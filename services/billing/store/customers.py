"""Customers."""

from dataclasses import asdict
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from services.billing.domain.customer import Customer, CustomerState
from services.billing.tables import customers


def add(conn: sa.Connection, customer: Customer) -> bool:
    """Insert a customer; False if its external key is taken."""
    statement = insert(customers).values(**asdict(customer)).on_conflict_do_nothing().returning(customers.c.id)
    return conn.execute(statement).one_or_none() is not None


def get(conn: sa.Connection, customer_id: str) -> Customer | None:
    """Return the customer."""
    row = conn.execute(sa.select(customers).where(customers.c.id == customer_id)).one_or_none()
    return None if row is None else _customer(row)


def raise_revision(conn: sa.Connection, customer_id: str) -> int:
    """Lock the customer until the transaction ends and return its next revision."""
    statement = (
        sa.update(customers)
        .where(customers.c.id == customer_id)
        .values(revision=customers.c.revision + 1)
        .returning(customers.c.revision)
    )
    return int(conn.execute(statement).scalar_one())


def page(conn: sa.Connection, *, external_key: str, after: str, limit: int) -> list[Customer]:
    """Return customers in the order of their creation, behind the id `after`; one key's only unless it is empty."""
    query = sa.select(customers).where(customers.c.id > after).order_by(customers.c.id).limit(limit)
    if external_key:
        query = query.where(customers.c.external_key == external_key)
    return [_customer(row) for row in conn.execute(query)]


def counts(conn: sa.Connection) -> dict[str, int]:
    """Return how many customers are in each state."""
    query = sa.select(customers.c.state, sa.func.count()).group_by(customers.c.state)
    return dict(conn.execute(query).all())


def _customer(row: sa.Row[Any]) -> Customer:
    values = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's public name
    return Customer(**{**values, "state": CustomerState(values["state"])})
