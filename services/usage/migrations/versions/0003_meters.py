"""Meters of all aggregations, with filters and groups; their values' digests; recounts."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

METERS = """
ALTER TABLE meters
    DROP CONSTRAINT meters_aggregation_check,
    ADD CONSTRAINT meters_aggregation_check
        CHECK (aggregation IN ('COUNT', 'SUM', 'MAX', 'MIN', 'AVG', 'UNIQUE', 'LATEST')),
    ADD COLUMN attribute text COLLATE "C" NOT NULL DEFAULT '',
    ADD COLUMN filters jsonb NOT NULL DEFAULT '[]',
    ADD COLUMN filter jsonpath,
    ADD COLUMN group_by text[] NOT NULL DEFAULT '{}',
    ADD COLUMN description text NOT NULL DEFAULT '',
    ADD COLUMN count_from timestamptz,
    ADD COLUMN sealed_upto bigint,
    ADD COLUMN archive_time timestamptz,
    ADD COLUMN until_tx xid8,
    ADD COLUMN until_generation integer;
CREATE TYPE latest AS (time timestamptz, id text COLLATE "C", value numeric);
"""

VALUES = """
CREATE TABLE bucket_values (
    customer bigint,
    meter integer,
    digest uuid,
    start_time timestamptz,
    seal bigint,
    group_key uuid,
    PRIMARY KEY (customer, meter, digest, start_time, seal, group_key)
);
CREATE INDEX bucket_values_by_time ON bucket_values (customer, meter, start_time);
ALTER TABLE sealed_totals ADD COLUMN own_values bigint NOT NULL DEFAULT 0;
"""

RECOUNTS = """
CREATE TABLE recounts (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    meter integer NOT NULL,
    state text NOT NULL CHECK (state IN ('RUNNING', 'DONE')),
    start_time timestamptz NOT NULL,
    end_time timestamptz NOT NULL,
    customer bigint NOT NULL,
    next_time timestamptz NOT NULL,
    customers_total bigint NOT NULL,
    customers_done bigint NOT NULL,
    events_done bigint NOT NULL,
    created_at timestamptz NOT NULL,
    ended_at timestamptz
);
CREATE INDEX recounts_by_meter ON recounts (meter, number);
CREATE UNIQUE INDEX recounts_running ON recounts (meter) WHERE state = 'RUNNING';

CREATE TABLE recount_slices (
    recount bigint,
    customer bigint,
    start_time timestamptz,
    end_time timestamptz NOT NULL,
    meter integer NOT NULL,
    tx xid8 NOT NULL,
    generation integer NOT NULL,
    PRIMARY KEY (recount, customer, start_time)
);
CREATE INDEX recount_slices_tx ON recount_slices (tx);
"""


def upgrade() -> None:
    """Create."""
    op.execute(METERS)
    op.execute(VALUES)
    op.execute(RECOUNTS)


def downgrade() -> None:
    """Forget them; refused while there are meters that the older code does not know."""
    op.execute(
        """
        DO $check$
        BEGIN
            IF EXISTS (SELECT FROM meters WHERE aggregation NOT IN ('COUNT', 'SUM') OR filter IS NOT NULL
                           OR group_by <> '{}' OR until_tx IS NOT NULL OR count_from IS NOT NULL) THEN
                RAISE EXCEPTION 'there are meters that only this revision can count';
            END IF;
        END
        $check$
        """
    )
    op.execute("DROP TABLE bucket_values, recounts, recount_slices")
    op.execute("ALTER TABLE sealed_totals DROP COLUMN own_values")
    op.execute("DROP TYPE latest")
    op.execute(
        """
        ALTER TABLE meters
            DROP COLUMN attribute, DROP COLUMN filters, DROP COLUMN filter, DROP COLUMN group_by,
            DROP COLUMN description, DROP COLUMN count_from, DROP COLUMN sealed_upto, DROP COLUMN archive_time,
            DROP COLUMN until_tx, DROP COLUMN until_generation,
            DROP CONSTRAINT meters_aggregation_check,
            ADD CONSTRAINT meters_aggregation_check CHECK (aggregation IN ('COUNT', 'SUM'))
        """
    )
