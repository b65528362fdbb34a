"""Events without a primary key: their identity is unique in event_keys, and a second unique index cost a third of ingest."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Find a customer's events by time alone."""
    op.execute("ALTER TABLE events DROP CONSTRAINT events_pkey")
    op.execute("CREATE INDEX events_by_time ON events (customer, time)")


def downgrade() -> None:
    """Bring the primary key back."""
    op.execute("DROP INDEX events_by_time")
    op.execute("ALTER TABLE events ADD PRIMARY KEY (customer, time, digest)")
