"""When held events were refused, and what the drift check found."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Refusals of before count from now."""
    op.execute(
        """
        ALTER TABLE quarantine ADD COLUMN refused_at timestamptz;
        UPDATE quarantine SET refused_at = now() WHERE refusal IS NOT NULL;
        CREATE TABLE drifts (
            customer bigint,
            quarter timestamptz,
            differences jsonb NOT NULL,
            found_at timestamptz NOT NULL,
            PRIMARY KEY (customer, quarter)
        );
        """
    )


def downgrade() -> None:
    """Forget both."""
    op.execute("DROP TABLE drifts")
    op.execute("ALTER TABLE quarantine DROP COLUMN refused_at")
