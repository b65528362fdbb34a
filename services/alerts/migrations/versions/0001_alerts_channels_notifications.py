"""Alerts, channels with the log among them, and notifications."""

from alembic import op

from services.kit.tables import create_kit_tables

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

ALERTS = """
CREATE TABLE alerts (
    customer_id text COLLATE "C",
    id text COLLATE "C",
    type text NOT NULL,
    severity text NOT NULL CONSTRAINT severity_known CHECK (severity IN ('INFO', 'WARNING', 'ERROR', 'CRITICAL')),
    state text NOT NULL CONSTRAINT state_known CHECK (state IN ('PENDING', 'FIRING', 'ACKNOWLEDGED', 'RESOLVED')),
    title text NOT NULL,
    message text NOT NULL,
    data jsonb NOT NULL,
    action_required boolean NOT NULL,
    fingerprint text COLLATE "C" NOT NULL,
    labels jsonb NOT NULL,
    starts_at timestamptz NOT NULL,
    ends_at timestamptz,
    signal_count bigint NOT NULL,
    service text NOT NULL,
    trace_id text NOT NULL,
    PRIMARY KEY (customer_id, id)
);
CREATE UNIQUE INDEX alerts_by_id ON alerts (id);
CREATE INDEX alerts_by_type ON alerts (type, id);
CREATE INDEX alerts_by_state ON alerts (state, id);
CREATE UNIQUE INDEX alerts_open_fingerprint ON alerts (fingerprint) WHERE state <> 'RESOLVED';
"""

CHANNELS = """
CREATE TABLE channels (
    id text COLLATE "C" PRIMARY KEY,
    kind text NOT NULL CONSTRAINT kind_known CHECK (kind IN ('log', 'webhook')),
    display_name text NOT NULL,
    url text NOT NULL,
    secret text NOT NULL,
    create_time timestamptz NOT NULL,
    CONSTRAINT channels_kind_url UNIQUE (kind, url)
);
INSERT INTO channels (id, kind, display_name, url, secret, create_time)
    VALUES ('chn_log', 'log', 'Log', '', '', now());
"""

NOTIFICATIONS = """
CREATE TABLE notifications (
    customer_id text COLLATE "C",
    id text COLLATE "C",
    alert_id text COLLATE "C" NOT NULL,
    channel_id text COLLATE "C" NOT NULL REFERENCES channels (id),
    state text NOT NULL CONSTRAINT state_known CHECK (state IN ('PENDING', 'DELIVERED', 'DEAD')),
    attempts integer NOT NULL,
    last_result text NOT NULL,
    create_time timestamptz NOT NULL,
    deliver_time timestamptz,
    PRIMARY KEY (customer_id, id),
    FOREIGN KEY (customer_id, alert_id) REFERENCES alerts (customer_id, id)
);
CREATE UNIQUE INDEX notifications_by_id ON notifications (id);
CREATE INDEX notifications_by_alert ON notifications (alert_id, id);
CREATE INDEX notifications_by_channel ON notifications (channel_id, id);
"""


def upgrade() -> None:
    """Create."""
    create_kit_tables(op)
    op.execute(ALERTS)
    op.execute(CHANNELS)
    op.execute(NOTIFICATIONS)


def downgrade() -> None:
    """There is nothing before the first revision."""
    raise NotImplementedError("the first revision has none before it: drop the schema instead")
