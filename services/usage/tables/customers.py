"""Customers, their billing periods and limits."""

from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from services.usage.tables.schema import ID, TIME, Xid8, metadata

customers: Final = sa.Table(
    "customers",
    metadata,
    sa.Column("number", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("id", ID, nullable=False, unique=True),
    sa.Column("revision", sa.BigInteger, nullable=False),
    sa.Column("time_zone", sa.Text, nullable=False),
    sa.Column("has_plan", sa.Boolean, nullable=False),
)

customer_keys: Final = sa.Table(
    "customer_keys",
    metadata,
    sa.Column("key", ID, primary_key=True),
    sa.Column("customer", sa.ForeignKey("customers.number"), nullable=False),
    sa.Index("customer_keys_by_customer", "customer"),
)

# Billing periods. Between them, and without any, usage counts by calendar month of the customer's time zone.
periods: Final = sa.Table(
    "periods",
    metadata,
    sa.Column("customer", sa.ForeignKey("customers.number"), primary_key=True),
    sa.Column("start_time", TIME, primary_key=True),
    sa.Column("end_time", TIME, sa.CheckConstraint("end_time > start_time"), nullable=False),
)

limits: Final = sa.Table(
    "limits",
    metadata,
    sa.Column("customer", sa.ForeignKey("customers.number"), primary_key=True),
    # By id: a plan may limit a meter that is created later.
    sa.Column("meter", ID, primary_key=True),
    sa.Column("amount", sa.Numeric, sa.CheckConstraint("amount >= 0"), nullable=False),
    sa.Column("kind", sa.Text, sa.CheckConstraint("kind IN ('HARD', 'SOFT')"), nullable=False),
    sa.Column("thresholds", ARRAY(sa.Integer), nullable=False),
)

# Of customers without a plan, where no limit of their own stands before it. Hard. From the worker's settings.
default_limits: Final = sa.Table(
    "default_limits",
    metadata,
    sa.Column("meter", ID, primary_key=True),
    sa.Column("amount", sa.Numeric, sa.CheckConstraint("amount >= 0"), nullable=False),
    sa.Column("thresholds", ARRAY(sa.Integer), nullable=False),
)

# Period boundaries inside a quarter of an hour: buckets of that quarter are cut there.
edges: Final = sa.Table(
    "edges",
    metadata,
    sa.Column("customer", sa.BigInteger, primary_key=True),
    sa.Column("quarter", TIME, primary_key=True),
    sa.Column("time", TIME, primary_key=True),
    sa.Column("tx", Xid8, nullable=False),
    sa.Column("generation", sa.Integer, nullable=False),
    sa.Index("edges_tx", "tx"),
)

# What changed of a customer: the rollup judges its limits anew, and sets its period totals from `recount_from` on.
changes: Final = sa.Table(
    "changes",
    metadata,
    sa.Column("customer", sa.BigInteger, primary_key=True),
    sa.Column("generation", sa.Integer, primary_key=True),
    sa.Column("tx", Xid8, primary_key=True),
    sa.Column("recount_from", TIME),
    # The W3C trace context of who changed it: signals of the change continue it.
    sa.Column("context", JSONB, nullable=False),
    sa.Column("created_at", TIME, nullable=False, server_default=sa.text("now()")),
    sa.Index("changes_tx", "tx"),
)
