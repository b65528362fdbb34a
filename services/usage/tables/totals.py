"""What the rollup makes of events, and what is frozen of it."""

from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from services.usage.tables.schema import ID, TIME, Xid8, group, metadata, state

# Of quarters of an hour (UTC), cut at edges. `seal` as in events; -1 for what a meter counted only after the seal that it
# would belong to: it is shown and never billed.
bucket_totals: Final = sa.Table(
    "bucket_totals",
    metadata,
    sa.Column("customer", sa.BigInteger, primary_key=True),
    sa.Column("meter", sa.Integer, primary_key=True),
    sa.Column("start_time", TIME, primary_key=True),
    sa.Column("seal", sa.BigInteger, primary_key=True),
    *group(),
    *state(),
    sa.Index("bucket_totals_late", "customer", "seal", postgresql_where=sa.text("seal <> 0")),
)

# Digests of the values that UNIQUE meters saw, by bucket: sets of them merge without counting any value twice.
bucket_values: Final = sa.Table(
    "bucket_values",
    metadata,
    sa.Column("customer", sa.BigInteger, primary_key=True),
    sa.Column("meter", sa.Integer, primary_key=True),
    sa.Column("digest", sa.Uuid, primary_key=True),
    sa.Column("start_time", TIME, primary_key=True),
    sa.Column("seal", sa.BigInteger, primary_key=True),
    sa.Column("group_key", sa.Uuid, primary_key=True),
    sa.Index("bucket_values_by_time", "customer", "meter", "start_time"),
)

# Of UNIQUE, `sum` is how many of the period's values no other row of it has counted.
period_totals: Final = sa.Table(
    "period_totals",
    metadata,
    sa.Column("customer", sa.BigInteger, primary_key=True),
    sa.Column("meter", sa.Integer, primary_key=True),
    sa.Column("period_start", TIME, primary_key=True),
    sa.Column("seal", sa.BigInteger, primary_key=True),
    *group(),
    *state(),
    # The rollup's place when it last moved: counters are published above a place.
    sa.Column("generation", sa.Integer, nullable=False),
    sa.Column("position", Xid8, nullable=False),
)

# Thresholds that were crossed; each raises one signal.
thresholds: Final = sa.Table(
    "thresholds",
    metadata,
    sa.Column("customer", sa.BigInteger, primary_key=True),
    sa.Column("meter", sa.Integer, primary_key=True),
    sa.Column("period_start", TIME, primary_key=True),
    sa.Column("threshold", sa.Integer, primary_key=True),
    sa.Column("used", sa.Numeric, nullable=False),
    sa.Column("amount", sa.Numeric, nullable=False),
    sa.Column("crossed_at", TIME, nullable=False, server_default=sa.text("now()")),
)

# One kept trace a customer, meter and day (UTC), for invoice lines to point to.
trace_samples: Final = sa.Table(
    "trace_samples",
    metadata,
    sa.Column("customer", sa.BigInteger, primary_key=True),
    sa.Column("meter", sa.Integer, primary_key=True),
    sa.Column("day", sa.Date, primary_key=True),
    sa.Column("seal", sa.BigInteger, primary_key=True),
    sa.Column("time", TIME, nullable=False),
    sa.Column("trace_id", sa.Uuid, nullable=False),
)

seals: Final = sa.Table(
    "seals",
    metadata,
    sa.Column("customer", sa.ForeignKey("customers.number"), primary_key=True),
    sa.Column("end_time", TIME, primary_key=True),
    sa.Column("number", sa.BigInteger, sa.Identity(always=True), unique=True),
    sa.Column("id", ID, nullable=False, unique=True),
    sa.Column("start_time", TIME, nullable=False),
    # Where its totals begin: the end of the seal before it.
    sa.Column("from_time", TIME, nullable=False),
    sa.Column("created_at", TIME, nullable=False, server_default=sa.text("now()")),
    # When the totals were copied; nothing changes them afterwards.
    sa.Column("sealed_at", TIME),
    sa.Index("seals_by_end", "end_time"),
)

sealed_totals: Final = sa.Table(
    "sealed_totals",
    metadata,
    sa.Column("customer", sa.BigInteger, primary_key=True),
    sa.Column("seal", sa.BigInteger, primary_key=True),
    sa.Column("meter", sa.Integer, primary_key=True),
    *group(),
    *state(),
    # Of UNIQUE: how many of the group's values no other group of the meter has counted. These add up, `sum` does not.
    sa.Column("own_values", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("trace_ids", ARRAY(sa.Uuid), nullable=False),
)

# Quarters of an hour (UTC) whose bucket totals are not what a recount of the raw events gives; each raised one signal.
drifts: Final = sa.Table(
    "drifts",
    metadata,
    sa.Column("customer", sa.BigInteger, primary_key=True),
    sa.Column("quarter", TIME, primary_key=True),
    # Each differing total as it is stored and as it was counted.
    sa.Column("differences", JSONB, nullable=False),
    sa.Column("found_at", TIME, nullable=False),
)
