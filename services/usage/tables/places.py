"""Places in the order of transactions and in time."""

from typing import Final

import sqlalchemy as sa

from services.usage.tables.schema import TIME, Xid8, metadata

generations: Final = sa.Table(
    "generations",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    # Of the cluster whose transaction ids it counts by (pg_control_system).
    sa.Column("system_identifier", sa.BigInteger, nullable=False),
    sa.Column("raised_at", TIME, nullable=False, server_default=sa.text("now()")),
)

# How far the rollup came: every row with (generation, tx) below (generation, last) is in the totals.
rollups: Final = sa.Table(
    "rollups",
    metadata,
    sa.Column("stripe", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("generation", sa.Integer, nullable=False),
    sa.Column("last", Xid8, nullable=False),
    # Every event acknowledged before it is in the totals.
    sa.Column("as_of", TIME, nullable=False),
    # How far the live counters came.
    sa.Column("published_generation", sa.Integer, nullable=False),
    sa.Column("published", Xid8, nullable=False),
)

# Stored instants that never move back. `accepted_from`: older events are refused, unless they are stored already.
floors: Final = sa.Table(
    "floors",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("time", TIME, nullable=False),
)
