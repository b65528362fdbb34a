"""Quota that is set aside before it is used."""

from typing import Final

import sqlalchemy as sa

from services.usage.tables.schema import ID, TIME, metadata

# Locked while quota of a customer and meter is set aside, used or given back; `version` grows each time.
quotas: Final = sa.Table(
    "quotas",
    metadata,
    sa.Column("customer", sa.BigInteger, primary_key=True),
    sa.Column("meter", sa.Integer, primary_key=True),
    sa.Column("version", sa.BigInteger, nullable=False),
    # The version that the live counters have.
    sa.Column("published", sa.BigInteger, nullable=False),
    sa.Index("quotas_unpublished", "customer", "meter", postgresql_where=sa.text("version <> published")),
)

_counts: Final = sa.text("counts")
reservations: Final = sa.Table(
    "reservations",
    metadata,
    sa.Column("customer", sa.BigInteger, primary_key=True),
    sa.Column("id", ID, primary_key=True),
    sa.Column("meter", sa.Integer, nullable=False),
    sa.Column("quantity", sa.Numeric, sa.CheckConstraint("quantity > 0"), nullable=False),
    sa.Column(
        "state",
        sa.Text,
        sa.CheckConstraint("state IN ('OPEN', 'COMMITTED', 'RELEASED', 'EXPIRED')"),
        nullable=False,
    ),
    # Whether it is set aside still; but from `counts_until` on it is not, even before a sweep says so here.
    sa.Column("counts", sa.Boolean, nullable=False),
    sa.Column("counts_until", TIME, nullable=False),
    sa.Column("create_time", TIME, nullable=False),
    sa.Column("expire_time", TIME, nullable=False),
    # The digest of the source and id of the event that reports the use: of a committed one.
    sa.Column("event", sa.Uuid),
    sa.Column("event_source", ID),
    sa.Column("event_id", ID),
    sa.Column("ended_at", TIME),
    sa.Index("reservations_counting", "customer", "meter", postgresql_where=_counts),
    sa.Index("reservations_ending", "counts_until", postgresql_where=_counts),
    sa.Index("reservations_committed", "customer", "event", postgresql_where=sa.text("counts AND state = 'COMMITTED'")),
    sa.Index("reservations_ended", "ended_at", postgresql_where=sa.text("NOT counts")),
)
