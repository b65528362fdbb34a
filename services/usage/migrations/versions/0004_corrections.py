"""Corrections: events that count no more, and those that count instead."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

CORRECTIONS = """
CREATE TABLE corrections (
    customer bigint,
    digest uuid,
    time timestamptz NOT NULL,
    tx xid8 NOT NULL,
    generation integer NOT NULL,
    seal bigint NOT NULL,
    event_type text COLLATE "C" NOT NULL,
    kind text NOT NULL CHECK (kind IN ('AMEND', 'CANCEL')),
    id text COLLATE "C" NOT NULL,
    source text COLLATE "C" NOT NULL,
    superseding uuid CHECK ((kind = 'AMEND') = (superseding IS NOT NULL)),
    superseding_id text COLLATE "C" NOT NULL,
    superseding_source text COLLATE "C" NOT NULL,
    reason text NOT NULL,
    context jsonb NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (customer, digest)
);
CREATE INDEX corrections_tx ON corrections (tx);
CREATE INDEX corrections_by_time ON corrections (customer, time, digest);
CREATE UNIQUE INDEX corrections_by_superseding ON corrections (customer, superseding) WHERE superseding IS NOT NULL;
CREATE INDEX corrections_by_seal ON corrections (customer, seal) WHERE seal <> 0;
"""


def upgrade() -> None:
    """Create."""
    op.execute(CORRECTIONS)


def downgrade() -> None:
    """Forget corrections; refused while there are any: the events would count again."""
    op.execute(
        """
        DO $check$
        BEGIN
            IF EXISTS (SELECT FROM corrections) THEN
                RAISE EXCEPTION 'there are corrections; without the table their events would count again';
            END IF;
        END
        $check$
        """
    )
    op.execute("DROP TABLE corrections")
