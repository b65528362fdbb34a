"""The kit's tables, which each service has in its own schema: outbox, requests, leases, schedules."""

from typing import Final, Protocol

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import BYTEA, JSONB

# A row waits (QUEUED), is with the broker (HANDED_OUT), runs (RUNNING), and ends (DONE, or DEAD when it was given up).
STATES: Final = ("QUEUED", "HANDED_OUT", "RUNNING", "DONE", "DEAD")
_OPEN: Final = "state IN ('QUEUED', 'HANDED_OUT', 'RUNNING')"

_timestamp = sa.DateTime(timezone=True)
_now = sa.text("now()")


def outbox_tables(metadata: sa.MetaData) -> None:
    """Add the kit's tables to a service's metadata."""
    _outbox(metadata)
    sa.Table(
        "requests",
        metadata,
        sa.Column("method", sa.Text, primary_key=True),
        sa.Column("request_id", sa.Text, primary_key=True),
        sa.Column("digest", BYTEA, nullable=False),
        # NULL only inside the transaction that acts on the request: nobody else sees it.
        sa.Column("response", BYTEA),
        sa.Column("created_at", _timestamp, nullable=False, server_default=_now),
        sa.Index("requests_created_at", "created_at"),
    )
    sa.Table(
        "leases",
        metadata,
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("holder", sa.Text, nullable=False),
        sa.Column("token", sa.BigInteger, nullable=False),
        sa.Column("expires_at", _timestamp, nullable=False),
    )
    sa.Table(
        "schedules",
        metadata,
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("job", sa.Text, nullable=False),
        sa.Column("next_run_at", _timestamp, nullable=False, server_default=_now),
        # The outbox row of the last run: while it is open, no further one is inserted.
        sa.Column("outbox_id", sa.Text),
        sa.Column("succeeded_at", _timestamp),
    )


def _outbox(metadata: sa.MetaData) -> None:
    sa.Table(
        "outbox",
        metadata,
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("seq", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("job", sa.Text, nullable=False),
        sa.Column("aggregate", sa.Text, nullable=False, server_default=""),
        sa.Column("payload", JSONB, nullable=False),
        # traceparent, tracestate, baggage of whoever put it.
        sa.Column("context", JSONB, nullable=False, server_default="{}"),
        sa.Column("state", sa.Text, nullable=False, server_default="QUEUED"),
        sa.Column("created_at", _timestamp, nullable=False, server_default=_now),
        # When it was to run first; what is long past it is stuck.
        sa.Column("due_at", _timestamp, nullable=False),
        # When the relay may hand it out (again): the end of a delay, a backoff or a lease.
        sa.Column("available_at", _timestamp, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
        # Fencing: one more at each start, and only the latest may write.
        sa.Column("token", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("last_error", sa.Text),
        sa.Column("finished_at", _timestamp),
        sa.CheckConstraint(f"state IN {STATES}", name="outbox_state"),
        sa.Index("outbox_available", "available_at", postgresql_where=sa.text(_OPEN)),
        sa.Index(
            "outbox_aggregate", "aggregate", "seq", postgresql_where=sa.text("state <> 'DONE' AND aggregate <> ''")
        ),
        sa.Index("outbox_dead", "job", postgresql_where=sa.text("state = 'DEAD'")),
        sa.Index("outbox_finished", "finished_at", postgresql_where=sa.text("state = 'DONE'")),
    )


class Bound(Protocol):
    """What Alembic's `op` is here."""

    def get_bind(self) -> sa.Connection:
        """Return the migration's connection."""


def create_kit_tables(op: Bound) -> None:
    """Create the kit's tables in a migration: `create_kit_tables(op)` in a service's first revision."""
    metadata = sa.MetaData()
    outbox_tables(metadata)
    metadata.create_all(op.get_bind(), checkfirst=False)


kit_metadata: Final = sa.MetaData()
outbox_tables(kit_metadata)
outbox: Final = kit_metadata.tables["outbox"]
requests: Final = kit_metadata.tables["requests"]
leases: Final = kit_metadata.tables["leases"]
schedules: Final = kit_metadata.tables["schedules"]
