"""Customers, plans, subscriptions, bill runs, invoices and the ledger."""

from alembic import op

from services.kit.tables import create_kit_tables

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

CATALOGUE = """
CREATE TABLE customers (
    id text COLLATE "C" PRIMARY KEY,
    external_key text NOT NULL,
    display_name text NOT NULL,
    state text NOT NULL,
    currency text NOT NULL,
    time_zone text NOT NULL,
    revision bigint NOT NULL,
    create_time timestamptz NOT NULL
);
CREATE UNIQUE INDEX customers_external_key ON customers (external_key) WHERE external_key <> '';

CREATE TABLE plan_versions (
    plan_id text COLLATE "C",
    version integer,
    terms jsonb NOT NULL,
    create_time timestamptz NOT NULL,
    PRIMARY KEY (plan_id, version)
);

CREATE TABLE subscriptions (
    customer_id text COLLATE "C" REFERENCES customers (id),
    id text COLLATE "C",
    plan_id text COLLATE "C" NOT NULL,
    plan_version integer NOT NULL,
    state text NOT NULL,
    start_time timestamptz NOT NULL,
    time_zone text NOT NULL,
    period_number integer NOT NULL,
    period_end timestamptz NOT NULL,
    entitled_until timestamptz NOT NULL,
    create_time timestamptz NOT NULL,
    PRIMARY KEY (customer_id, id),
    FOREIGN KEY (plan_id, plan_version) REFERENCES plan_versions (plan_id, version)
);
CREATE UNIQUE INDEX subscriptions_id ON subscriptions (id);
CREATE UNIQUE INDEX subscriptions_running ON subscriptions (customer_id) WHERE state = 'ACTIVE';
CREATE INDEX subscriptions_due ON subscriptions (period_end) WHERE state = 'ACTIVE';
CREATE INDEX subscriptions_entitled ON subscriptions (entitled_until) WHERE state = 'ACTIVE';
"""

BILL_RUNS = """
CREATE TABLE bill_runs (
    id text COLLATE "C" PRIMARY KEY,
    as_of timestamptz NOT NULL,
    planned_to text COLLATE "C",
    trace_id text NOT NULL,
    create_time timestamptz NOT NULL
);

CREATE TABLE bill_run_items (
    customer_id text COLLATE "C",
    subscription_id text COLLATE "C",
    period_start timestamptz,
    bill_run_id text COLLATE "C" REFERENCES bill_runs (id),
    period_number integer NOT NULL,
    period_end timestamptz NOT NULL,
    state text NOT NULL CONSTRAINT bill_run_items_state CHECK (state IN ('OPEN', 'INVOICED', 'FAILED')),
    message text NOT NULL,
    end_time timestamptz,
    PRIMARY KEY (customer_id, subscription_id, period_start, bill_run_id)
);
CREATE UNIQUE INDEX bill_run_items_once ON bill_run_items (subscription_id, period_start)
    WHERE state IN ('OPEN', 'INVOICED');
CREATE INDEX bill_run_items_run ON bill_run_items (bill_run_id, state);
"""

INVOICES = """
CREATE TABLE invoices (
    customer_id text COLLATE "C" REFERENCES customers (id),
    id text COLLATE "C",
    seller text NOT NULL,
    number text NOT NULL,
    customer_display_name text NOT NULL,
    subscription_id text COLLATE "C" NOT NULL,
    plan_id text COLLATE "C" NOT NULL,
    plan_version integer NOT NULL,
    bill_run_id text COLLATE "C" NOT NULL,
    state text NOT NULL
        CONSTRAINT invoices_state CHECK (state IN ('DRAFT', 'FINALIZED', 'PAID', 'VOID', 'UNCOLLECTIBLE')),
    currency text NOT NULL,
    period_start timestamptz NOT NULL,
    period_end timestamptz NOT NULL,
    subtotal numeric NOT NULL,
    tax numeric NOT NULL,
    total numeric NOT NULL,
    amount_due numeric NOT NULL,
    seal_id text NOT NULL,
    payment_id text NOT NULL,
    trace_id text NOT NULL,
    finalize_time timestamptz,
    paid_time timestamptz,
    PRIMARY KEY (customer_id, id),
    CONSTRAINT invoices_numbered CHECK ((number = '') = (state = 'DRAFT')),
    CONSTRAINT invoices_total CHECK (total = subtotal + tax),
    CONSTRAINT invoices_amount_due CHECK (amount_due >= 0)
);
CREATE UNIQUE INDEX invoices_id ON invoices (id);
CREATE UNIQUE INDEX invoices_period ON invoices (subscription_id, period_start);
CREATE UNIQUE INDEX invoices_number ON invoices (seller, number) WHERE number <> '';
CREATE INDEX invoices_bill_run ON invoices (bill_run_id, id);

CREATE TABLE invoice_lines (
    customer_id text COLLATE "C",
    invoice_id text COLLATE "C",
    position integer,
    component_id text NOT NULL,
    description text NOT NULL,
    kind text NOT NULL,
    meter text NOT NULL,
    quantity numeric NOT NULL,
    unit text NOT NULL,
    unit_price numeric,
    per numeric,
    included numeric,
    precise_amount numeric NOT NULL,
    amount numeric NOT NULL,
    tax_amount numeric NOT NULL,
    tiers jsonb NOT NULL,
    event_count bigint NOT NULL,
    sample_trace_ids text[] NOT NULL,
    period_start timestamptz NOT NULL,
    period_end timestamptz NOT NULL,
    priced_quantity numeric NOT NULL,
    billed_before numeric NOT NULL,
    PRIMARY KEY (customer_id, invoice_id, position),
    FOREIGN KEY (customer_id, invoice_id) REFERENCES invoices (customer_id, id)
);

CREATE TABLE invoice_series (
    seller text,
    fiscal_year text,
    last bigint NOT NULL,
    PRIMARY KEY (seller, fiscal_year)
);

-- Once an invoice is finalized, only where it stands and what is paid of it may change, and never backwards.
CREATE FUNCTION keep_invoice_frozen() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    may_change CONSTANT text[] := '{state,amount_due,payment_id,paid_time}';
BEGIN
    IF OLD.state = 'DRAFT' THEN
        IF TG_OP = 'UPDATE' AND NEW.state <> 'DRAFT' AND NEW.subtotal IS DISTINCT FROM (
            SELECT sum(amount) FROM invoice_lines l WHERE l.customer_id = NEW.customer_id AND l.invoice_id = NEW.id
        ) THEN
            RAISE EXCEPTION 'invoice % does not add up to its lines', NEW.id USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        RETURN COALESCE(NEW, OLD);
    END IF;
    IF TG_OP = 'UPDATE' AND NEW.state <> 'DRAFT' AND NEW.amount_due <= OLD.amount_due
        AND to_jsonb(NEW) - may_change = to_jsonb(OLD) - may_change THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'invoice % is frozen', OLD.id USING ERRCODE = 'integrity_constraint_violation';
END $$;
CREATE TRIGGER invoices_frozen BEFORE UPDATE OR DELETE ON invoices FOR EACH ROW EXECUTE FUNCTION keep_invoice_frozen();

CREATE FUNCTION keep_invoice_lines_frozen() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM invoices i
               WHERE (i.customer_id, i.id) IN ((OLD.customer_id, OLD.invoice_id), (NEW.customer_id, NEW.invoice_id))
                 AND i.state <> 'DRAFT') THEN
        RAISE EXCEPTION 'invoice % is frozen, with its lines', COALESCE(OLD.invoice_id, NEW.invoice_id)
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN COALESCE(NEW, OLD);
END $$;
CREATE TRIGGER invoice_lines_frozen BEFORE INSERT OR UPDATE OR DELETE ON invoice_lines
    FOR EACH ROW EXECUTE FUNCTION keep_invoice_lines_frozen();
"""

LEDGER = """
CREATE TABLE ledger_transactions (
    customer_id text COLLATE "C",
    id text COLLATE "C",
    description text NOT NULL,
    invoice_id text COLLATE "C" NOT NULL,
    payment_id text NOT NULL,
    create_time timestamptz NOT NULL,
    PRIMARY KEY (customer_id, id)
);

CREATE TABLE ledger_entries (
    customer_id text COLLATE "C",
    id text COLLATE "C",
    transaction_id text COLLATE "C" NOT NULL,
    account text COLLATE "C" NOT NULL,
    currency text NOT NULL,
    amount numeric NOT NULL,
    PRIMARY KEY (customer_id, id),
    FOREIGN KEY (customer_id, transaction_id) REFERENCES ledger_transactions (customer_id, id)
);
CREATE INDEX ledger_entries_transaction ON ledger_entries (customer_id, transaction_id);
CREATE INDEX ledger_entries_account ON ledger_entries (account, id);

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is never changed: correct it by a new entry', TG_TABLE_NAME
        USING ERRCODE = 'integrity_constraint_violation';
END $$;
CREATE TRIGGER ledger_transactions_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger_transactions
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER ledger_entries_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger_entries
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER invoices_kept BEFORE TRUNCATE ON invoices FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER invoice_lines_kept BEFORE TRUNCATE ON invoice_lines FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Judged at the commit, when all legs are there.
CREATE FUNCTION refuse_imbalance() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM ledger_entries e
               WHERE e.customer_id = NEW.customer_id AND e.transaction_id = NEW.transaction_id
               GROUP BY e.currency HAVING sum(e.amount) <> 0) THEN
        RAISE EXCEPTION 'ledger transaction % does not add up to zero', NEW.transaction_id
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER ledger_entries_balanced AFTER INSERT ON ledger_entries
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse_imbalance();
"""


def upgrade() -> None:
    create_kit_tables(op)
    for statements in (CATALOGUE, BILL_RUNS, INVOICES, LEDGER):
        op.get_bind().exec_driver_sql(statements, execution_options={"no_parameters": True})


def downgrade() -> None:
    raise NotImplementedError("the first revision has none before it: drop the schema instead")
