"""Customers and their entitlements, meters, events with their keys, quarantine, totals, seals, and the rollup's place."""

from alembic import op

from services.kit.tables import create_kit_tables

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

KEY_PARTITIONS = 16

CUSTOMERS = """
CREATE TABLE customers (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id text COLLATE "C" NOT NULL UNIQUE,
    revision bigint NOT NULL,
    time_zone text NOT NULL,
    has_plan boolean NOT NULL
);

CREATE TABLE customer_keys (
    key text COLLATE "C" PRIMARY KEY,
    customer bigint NOT NULL REFERENCES customers
);
CREATE INDEX customer_keys_by_customer ON customer_keys (customer);

CREATE TABLE periods (
    customer bigint REFERENCES customers,
    start_time timestamptz,
    end_time timestamptz NOT NULL CHECK (end_time > start_time),
    PRIMARY KEY (customer, start_time)
);

CREATE TABLE limits (
    customer bigint REFERENCES customers,
    meter text COLLATE "C",
    amount numeric NOT NULL CHECK (amount >= 0),
    kind text NOT NULL CHECK (kind IN ('HARD', 'SOFT')),
    thresholds integer[] NOT NULL,
    PRIMARY KEY (customer, meter)
);

CREATE TABLE edges (
    customer bigint,
    quarter timestamptz,
    time timestamptz,
    tx xid8 NOT NULL,
    generation integer NOT NULL,
    PRIMARY KEY (customer, quarter, time)
);
CREATE INDEX edges_tx ON edges (tx);

CREATE TABLE changes (
    customer bigint,
    generation integer,
    tx xid8,
    recount_from timestamptz,
    context jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (customer, generation, tx)
);
CREATE INDEX changes_tx ON changes (tx);

CREATE TABLE meters (
    number integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id text COLLATE "C" NOT NULL UNIQUE,
    event_type text COLLATE "C" NOT NULL,
    aggregation text NOT NULL CHECK (aggregation IN ('COUNT', 'SUM')),
    quantity text COLLATE "C" NOT NULL,
    unit text NOT NULL,
    create_time timestamptz NOT NULL,
    from_tx xid8 NOT NULL,
    generation integer NOT NULL
);
CREATE INDEX meters_by_event_type ON meters (event_type);
"""

EVENTS = """
CREATE TABLE event_keys (
    customer bigint,
    digest uuid,
    content uuid NOT NULL,
    time timestamptz NOT NULL,
    PRIMARY KEY (customer, digest)
) PARTITION BY HASH (customer);

CREATE TABLE events (
    customer bigint,
    time timestamptz,
    digest uuid,
    tx xid8 NOT NULL,
    seal bigint NOT NULL,
    span_id bigint,
    trace_id uuid,
    received timestamptz NOT NULL,
    generation integer NOT NULL,
    sampled boolean NOT NULL,
    id text COLLATE "C" NOT NULL,
    source text COLLATE "C" NOT NULL,
    type text COLLATE "C" NOT NULL,
    quantities jsonb,
    attributes jsonb,
    PRIMARY KEY (customer, time, digest)
) PARTITION BY RANGE (time);
CREATE INDEX events_tx ON events (tx);
CREATE INDEX events_sampled ON events (tx) WHERE sampled;
CREATE TABLE events_default PARTITION OF events DEFAULT;
DO $months$
DECLARE
    month timestamptz := date_trunc('month', now(), 'UTC') - interval '3 months';
BEGIN
    WHILE month < now() + interval '2 months' LOOP
        EXECUTE format('CREATE TABLE %I PARTITION OF events FOR VALUES FROM (%L) TO (%L)',
                       'events_' || to_char(month, 'YYYYMM'), month, month + interval '1 month');
        month := month + interval '1 month';
    END LOOP;
END
$months$;

CREATE TABLE quarantine (
    digest uuid,
    content uuid,
    received timestamptz NOT NULL,
    customer_id text COLLATE "C" NOT NULL,
    customer_key text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    source text COLLATE "C" NOT NULL,
    type text COLLATE "C" NOT NULL,
    time timestamptz NOT NULL,
    quantities jsonb,
    attributes jsonb,
    trace_id uuid,
    span_id bigint,
    reason text NOT NULL,
    refusal text,
    PRIMARY KEY (digest, content)
);
CREATE INDEX quarantine_held ON quarantine (received, digest, content) WHERE refusal IS NULL;
CREATE INDEX quarantine_by_key ON quarantine (customer_key) WHERE refusal IS NULL;
CREATE INDEX quarantine_by_customer ON quarantine (customer_id) WHERE refusal IS NULL;
"""

STATE = """
    count bigint NOT NULL,
    sum numeric NOT NULL,
    min numeric,
    max numeric,
    latest_time timestamptz,
    latest_id text COLLATE "C",
    latest_value numeric
"""

TOTALS = f"""
CREATE TABLE bucket_totals (
    customer bigint,
    meter integer,
    start_time timestamptz,
    seal bigint,
    group_key uuid,
    group_values jsonb,
    {STATE},
    PRIMARY KEY (customer, meter, start_time, seal, group_key)
) WITH (fillfactor = 70);
CREATE INDEX bucket_totals_late ON bucket_totals (customer, seal) WHERE seal <> 0;

CREATE TABLE period_totals (
    customer bigint,
    meter integer,
    period_start timestamptz,
    seal bigint,
    group_key uuid,
    group_values jsonb,
    {STATE},
    generation integer NOT NULL,
    position xid8 NOT NULL,
    PRIMARY KEY (customer, meter, period_start, seal, group_key)
) WITH (fillfactor = 70);

CREATE TABLE thresholds (
    customer bigint,
    meter integer,
    period_start timestamptz,
    threshold integer,
    used numeric NOT NULL,
    amount numeric NOT NULL,
    crossed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (customer, meter, period_start, threshold)
);

CREATE TABLE trace_samples (
    customer bigint,
    meter integer,
    day date,
    seal bigint,
    time timestamptz NOT NULL,
    trace_id uuid NOT NULL,
    PRIMARY KEY (customer, meter, day, seal)
);

CREATE TABLE seals (
    customer bigint REFERENCES customers,
    end_time timestamptz,
    number bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    id text COLLATE "C" NOT NULL UNIQUE,
    start_time timestamptz NOT NULL,
    from_time timestamptz NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    sealed_at timestamptz,
    PRIMARY KEY (customer, end_time)
);
CREATE INDEX seals_by_end ON seals (end_time);

CREATE TABLE sealed_totals (
    customer bigint,
    seal bigint,
    meter integer,
    group_key uuid,
    group_values jsonb,
    {STATE},
    trace_ids uuid[] NOT NULL,
    PRIMARY KEY (customer, seal, meter, group_key)
);
"""

PLACES = """
CREATE TABLE generations (
    number integer PRIMARY KEY,
    system_identifier bigint NOT NULL,
    raised_at timestamptz NOT NULL DEFAULT now()
);
INSERT INTO generations (number, system_identifier) SELECT 1, system_identifier FROM pg_control_system();

CREATE TABLE rollups (
    stripe integer PRIMARY KEY,
    generation integer NOT NULL,
    last xid8 NOT NULL,
    as_of timestamptz NOT NULL,
    published_generation integer NOT NULL,
    published xid8 NOT NULL
);
INSERT INTO rollups VALUES (0, 1, pg_current_xact_id(), now(), 1, pg_current_xact_id());

CREATE TABLE floors (
    name text PRIMARY KEY,
    time timestamptz NOT NULL
);
INSERT INTO floors VALUES ('accepted_from', '2000-01-01');
"""


def upgrade() -> None:
    """Create."""
    create_kit_tables(op)
    op.execute(CUSTOMERS)
    op.execute(EVENTS)
    for remainder in range(KEY_PARTITIONS):
        bounds = f"FOR VALUES WITH (MODULUS {KEY_PARTITIONS}, REMAINDER {remainder})"
        op.execute(f"CREATE TABLE event_keys_{remainder:02} PARTITION OF event_keys {bounds}")
    op.execute(TOTALS)
    op.execute(PLACES)


def downgrade() -> None:
    """There is nothing before the first revision."""
    raise NotImplementedError("the first revision has none before it: drop the schema instead")
