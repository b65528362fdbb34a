"""What days cost, reports that jobs make, and anomalies."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

COSTS = """
CREATE TABLE cost_periods (
    customer bigint,
    period_start timestamptz,
    period_end timestamptz NOT NULL,
    plan_id text COLLATE "C" NOT NULL,
    plan_version integer NOT NULL,
    currency text NOT NULL,
    digest uuid NOT NULL,
    as_of timestamptz NOT NULL,
    spike_told boolean NOT NULL DEFAULT false,
    PRIMARY KEY (customer, period_start)
);

CREATE TABLE daily_costs (
    customer bigint,
    day date,
    period_start timestamptz,
    component text COLLATE "C",
    display_name text NOT NULL,
    meter text COLLATE "C" NOT NULL,
    quantity numeric NOT NULL,
    amount numeric NOT NULL,
    PRIMARY KEY (customer, day, period_start, component),
    FOREIGN KEY (customer, period_start) REFERENCES cost_periods ON DELETE CASCADE
);
CREATE INDEX daily_costs_by_period ON daily_costs (customer, period_start);

CREATE TABLE costing (
    stripe integer PRIMARY KEY,
    generation integer NOT NULL,
    position xid8 NOT NULL
);
INSERT INTO costing VALUES (0, 0, '0');
"""

REPORTS = """
CREATE TABLE reports (
    customer bigint,
    id text COLLATE "C",
    start_time timestamptz NOT NULL,
    end_time timestamptz NOT NULL,
    state text NOT NULL CHECK (state IN ('RUNNING', 'READY', 'FAILED')),
    progress integer NOT NULL,
    error text NOT NULL,
    report bytea,
    created_at timestamptz NOT NULL,
    finished_at timestamptz,
    PRIMARY KEY (customer, id)
);
CREATE INDEX reports_by_creation ON reports (created_at);
"""

ANOMALIES = """
CREATE TABLE anomalies (
    customer bigint,
    id text COLLATE "C",
    meter integer NOT NULL,
    kind text NOT NULL CHECK (kind IN ('SPIKE', 'DROP')),
    start_time timestamptz NOT NULL,
    end_time timestamptz NOT NULL,
    finding jsonb NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (customer, id)
);
CREATE UNIQUE INDEX anomalies_by_id ON anomalies (id);
CREATE INDEX anomalies_by_window ON anomalies (customer, meter, kind, end_time);
"""


def upgrade() -> None:
    """Make them."""
    for statements in (COSTS, REPORTS, ANOMALIES):
        op.execute(statements)


def downgrade() -> None:
    """Remove them."""
    op.execute("DROP TABLE daily_costs, cost_periods, costing, reports, anomalies")
