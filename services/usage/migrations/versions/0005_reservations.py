"""Limits of customers without a plan, and quota that is set aside."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

DEFAULTS = """
CREATE TABLE default_limits (
    meter text COLLATE "C" PRIMARY KEY,
    amount numeric NOT NULL CHECK (amount >= 0),
    thresholds integer[] NOT NULL
)
"""
RESERVATIONS = """
CREATE TABLE quotas (
    customer bigint,
    meter integer,
    version bigint NOT NULL,
    published bigint NOT NULL,
    PRIMARY KEY (customer, meter)
);
CREATE INDEX quotas_unpublished ON quotas (customer, meter) WHERE version <> published;

CREATE TABLE reservations (
    customer bigint,
    id text COLLATE "C",
    meter integer NOT NULL,
    quantity numeric NOT NULL CHECK (quantity > 0),
    state text NOT NULL CHECK (state IN ('OPEN', 'COMMITTED', 'RELEASED', 'EXPIRED')),
    counts boolean NOT NULL,
    counts_until timestamptz NOT NULL,
    create_time timestamptz NOT NULL,
    expire_time timestamptz NOT NULL,
    event uuid,
    event_source text COLLATE "C",
    event_id text COLLATE "C",
    ended_at timestamptz,
    PRIMARY KEY (customer, id)
);
CREATE INDEX reservations_counting ON reservations (customer, meter) WHERE counts;
CREATE INDEX reservations_ending ON reservations (counts_until) WHERE counts;
CREATE INDEX reservations_committed ON reservations (customer, event) WHERE counts AND state = 'COMMITTED';
CREATE INDEX reservations_ended ON reservations (ended_at) WHERE NOT counts;
"""


def upgrade() -> None:
    """Create the tables."""
    op.execute(DEFAULTS)
    op.execute(RESERVATIONS)


def downgrade() -> None:
    """Drop them."""
    op.execute("DROP TABLE default_limits, quotas, reservations")
