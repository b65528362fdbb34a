"""Events, what corrects them, and those that are held."""

from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from services.usage.tables.schema import ID, TIME, Xid8, metadata

# Identities. Partitioned by hash of the customer.
event_keys: Final = sa.Table(
    "event_keys",
    metadata,
    sa.Column("customer", sa.BigInteger, primary_key=True),
    sa.Column("digest", sa.Uuid, primary_key=True),
    sa.Column("content", sa.Uuid, nullable=False),
    sa.Column("time", TIME, nullable=False),
    postgresql_partition_by="HASH (customer)",
)

# Partitioned by month of `time`, with a default partition. Identities are unique in event_keys: another unique index
# here would cost a third of ingest.
events: Final = sa.Table(
    "events",
    metadata,
    sa.Column("customer", sa.BigInteger, nullable=False),
    sa.Column("time", TIME, nullable=False),
    sa.Column("digest", sa.Uuid, nullable=False),
    sa.Column("tx", Xid8, nullable=False),
    # The seal that it came too late for; 0 for none.
    sa.Column("seal", sa.BigInteger, nullable=False),
    # Of the span that took it in: with the trace id, the parent of a signal that it raises.
    sa.Column("span_id", sa.BigInteger),
    sa.Column("trace_id", sa.Uuid),
    sa.Column("received", TIME, nullable=False),
    sa.Column("generation", sa.Integer, nullable=False),
    # Its trace is kept, as one of the customer's and day's.
    sa.Column("sampled", sa.Boolean, nullable=False),
    sa.Column("id", ID, nullable=False),
    sa.Column("source", ID, nullable=False),
    sa.Column("type", ID, nullable=False),
    sa.Column("quantities", JSONB),
    sa.Column("attributes", JSONB),
    sa.Index("events_by_time", "customer", "time"),
    sa.Index("events_tx", "tx"),
    sa.Index("events_sampled", "tx", postgresql_where=sa.text("sampled")),
    postgresql_partition_by="RANGE (time)",
)

# Events that count no more: amended (another event counts instead) or cancelled. What counts is written in store/counted.
corrections: Final = sa.Table(
    "corrections",
    metadata,
    sa.Column("customer", sa.BigInteger, primary_key=True),
    # Of the corrected event: its identity and time.
    sa.Column("digest", sa.Uuid, primary_key=True),
    sa.Column("time", TIME, nullable=False),
    sa.Column("tx", Xid8, nullable=False),
    sa.Column("generation", sa.Integer, nullable=False),
    # The seal whose totals, or late usage, have the corrected event in them: what the correction adjusts; 0 for none.
    sa.Column("seal", sa.BigInteger, nullable=False),
    sa.Column("event_type", ID, nullable=False),
    sa.Column("kind", sa.Text, sa.CheckConstraint("kind IN ('AMEND', 'CANCEL')"), nullable=False),
    sa.Column("id", ID, nullable=False),
    sa.Column("source", ID, nullable=False),
    # The identity of the event that counts instead; empty names for a cancel.
    sa.Column("superseding", sa.Uuid, sa.CheckConstraint("(kind = 'AMEND') = (superseding IS NOT NULL)")),
    sa.Column("superseding_id", ID, nullable=False),
    sa.Column("superseding_source", ID, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    # The W3C trace context of who corrected it.
    sa.Column("context", JSONB, nullable=False),
    sa.Column("created_at", TIME, nullable=False),
    sa.Index("corrections_tx", "tx"),
    sa.Index("corrections_by_time", "customer", "time", "digest"),
    sa.Index(
        "corrections_by_superseding",
        "customer",
        "superseding",
        unique=True,
        postgresql_where=sa.text("superseding IS NOT NULL"),
    ),
    sa.Index("corrections_by_seal", "customer", "seal", postgresql_where=sa.text("seal <> 0")),
)

_held: Final = sa.text("refusal IS NULL")
quarantine: Final = sa.Table(
    "quarantine",
    metadata,
    # Of the customer as it was named, source and id: no customer's key is reserved.
    sa.Column("digest", sa.Uuid, primary_key=True),
    sa.Column("content", sa.Uuid, primary_key=True),
    sa.Column("received", TIME, nullable=False),
    sa.Column("customer_id", ID, nullable=False),
    sa.Column("customer_key", ID, nullable=False),
    sa.Column("id", ID, nullable=False),
    sa.Column("source", ID, nullable=False),
    sa.Column("type", ID, nullable=False),
    sa.Column("time", TIME, nullable=False),
    sa.Column("quantities", JSONB),
    sa.Column("attributes", JSONB),
    sa.Column("trace_id", sa.Uuid),
    sa.Column("span_id", sa.BigInteger),
    sa.Column("reason", sa.Text, nullable=False),
    # Why a replay refused it for good; it is kept for people to look at.
    sa.Column("refusal", sa.Text),
    sa.Column("refused_at", TIME),
    sa.Index("quarantine_held", "received", "digest", "content", postgresql_where=_held),
    sa.Index("quarantine_by_key", "customer_key", postgresql_where=_held),
    sa.Index("quarantine_by_customer", "customer_id", postgresql_where=_held),
)
