"""Meters, and the recounts of what was stored before them."""

from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, JSONPATH

from services.usage.tables.schema import ID, TIME, Xid8, metadata

meters: Final = sa.Table(
    "meters",
    metadata,
    sa.Column("number", sa.Integer, sa.Identity(always=True), primary_key=True),
    sa.Column("id", ID, nullable=False, unique=True),
    sa.Column("event_type", ID, nullable=False),
    sa.Column(
        "aggregation",
        sa.Text,
        sa.CheckConstraint("aggregation IN ('COUNT', 'SUM', 'MAX', 'MIN', 'AVG', 'UNIQUE', 'LATEST')"),
        nullable=False,
    ),
    sa.Column("quantity", ID, nullable=False),
    # Of UNIQUE: whose values are counted.
    sa.Column("attribute", ID, nullable=False, server_default=""),
    # As they were given, and as one condition on an event's attributes; null for none.
    sa.Column("filters", JSONB, nullable=False, server_default="[]"),
    sa.Column("filter", JSONPATH),
    sa.Column("group_by", ARRAY(sa.Text), nullable=False, server_default="{}"),
    sa.Column("unit", sa.Text, nullable=False),
    sa.Column("description", sa.Text, nullable=False, server_default=""),
    sa.Column("create_time", TIME, nullable=False),
    # It counts events from here on; of those before, by recounts, what happened at `count_from` or later.
    sa.Column("from_tx", Xid8, nullable=False),
    sa.Column("generation", sa.Integer, nullable=False),
    sa.Column("count_from", TIME),
    # Seals that were frozen before this instant were so before it counted those earlier events: no invoice has them.
    sa.Column("sealed_before", TIME),
    # It counts no event from here on: it is archived.
    sa.Column("archive_time", TIME),
    sa.Column("until_tx", Xid8),
    sa.Column("until_generation", sa.Integer),
    sa.Index("meters_by_event_type", "event_type"),
)

# Counting a meter's stored events, customer by customer; `customer` and `next_time` say how far it came.
recounts: Final = sa.Table(
    "recounts",
    metadata,
    sa.Column("number", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("meter", sa.Integer, nullable=False),
    sa.Column("state", sa.Text, sa.CheckConstraint("state IN ('RUNNING', 'DONE')"), nullable=False),
    sa.Column("start_time", TIME, nullable=False),
    sa.Column("end_time", TIME, nullable=False),
    sa.Column("customer", sa.BigInteger, nullable=False),
    sa.Column("next_time", TIME, nullable=False),
    sa.Column("customers_total", sa.BigInteger, nullable=False),
    sa.Column("customers_done", sa.BigInteger, nullable=False),
    sa.Column("events_done", sa.BigInteger, nullable=False),
    sa.Column("created_at", TIME, nullable=False),
    sa.Column("ended_at", TIME),
    sa.Index("recounts_by_meter", "meter", "number"),
    sa.Index("recounts_running", "meter", unique=True, postgresql_where=sa.text("state = 'RUNNING'")),
)

# What a recount asks the rollup to set: a meter's totals of a customer in whole quarters of an hour.
recount_slices: Final = sa.Table(
    "recount_slices",
    metadata,
    sa.Column("recount", sa.BigInteger, primary_key=True),
    sa.Column("customer", sa.BigInteger, primary_key=True),
    sa.Column("start_time", TIME, primary_key=True),
    sa.Column("end_time", TIME, nullable=False),
    sa.Column("meter", sa.Integer, nullable=False),
    sa.Column("tx", Xid8, nullable=False),
    sa.Column("generation", sa.Integer, nullable=False),
    sa.Index("recount_slices_tx", "tx"),
)
