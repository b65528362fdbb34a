"""What usage costs, as billing priced it."""

from typing import Final

import sqlalchemy as sa

from services.usage.tables.schema import ID, TIME, Xid8, metadata

# What a period was last priced as, and from which usage: `digest` of it says whether it moved since.
cost_periods: Final = sa.Table(
    "cost_periods",
    metadata,
    sa.Column("customer", sa.BigInteger, primary_key=True),
    sa.Column("period_start", TIME, primary_key=True),
    sa.Column("period_end", TIME, nullable=False),
    # Empty without a plan; so is the currency then.
    sa.Column("plan_id", ID, nullable=False),
    sa.Column("plan_version", sa.Integer, nullable=False),
    sa.Column("currency", sa.Text, nullable=False),
    sa.Column("digest", sa.Uuid, nullable=False),
    # Every event acknowledged before it is priced.
    sa.Column("as_of", TIME, nullable=False),
    # Whether the signal was raised that it costs far more than the period before.
    sa.Column("spike_told", sa.Boolean, nullable=False, server_default=sa.text("false")),
)

# By day of the customer's zone; a day on which nothing moved has no row.
daily_costs: Final = sa.Table(
    "daily_costs",
    metadata,
    sa.Column("customer", sa.BigInteger, primary_key=True),
    sa.Column("day", sa.Date, primary_key=True),
    sa.Column("period_start", TIME, primary_key=True),
    sa.Column("component", ID, primary_key=True),
    sa.Column("display_name", sa.Text, nullable=False),
    # Empty on a flat fee.
    sa.Column("meter", ID, nullable=False),
    # What the period had used through the day.
    sa.Column("quantity", sa.Numeric, nullable=False),
    # Before rounding.
    sa.Column("amount", sa.Numeric, nullable=False),
    sa.ForeignKeyConstraint(
        ["customer", "period_start"], ["cost_periods.customer", "cost_periods.period_start"], ondelete="CASCADE"
    ),
    sa.Index("daily_costs_by_period", "customer", "period_start"),
)

# Up to which place of the rollup totals are priced: one row.
costing: Final = sa.Table(
    "costing",
    metadata,
    sa.Column("stripe", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("generation", sa.Integer, nullable=False),
    sa.Column("position", Xid8, nullable=False),
)
