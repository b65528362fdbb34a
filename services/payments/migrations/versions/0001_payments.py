"""Payment methods, payments, their attempts, and the sandbox provider's own books."""

from alembic import op

from services.kit.tables import create_kit_tables

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

PAYMENTS = """
CREATE TABLE payment_methods (
    customer_id text COLLATE "C",
    id text COLLATE "C",
    provider text NOT NULL,
    provider_token text NOT NULL,
    create_time timestamptz NOT NULL,
    PRIMARY KEY (customer_id, id)
);

CREATE TABLE default_methods (
    customer_id text COLLATE "C" PRIMARY KEY,
    payment_method_id text COLLATE "C" NOT NULL,
    FOREIGN KEY (customer_id, payment_method_id) REFERENCES payment_methods (customer_id, id)
);

CREATE TABLE payments (
    customer_id text COLLATE "C",
    id text COLLATE "C",
    invoice_id text COLLATE "C" NOT NULL,
    amount numeric NOT NULL CONSTRAINT amount_positive CHECK (amount > 0),
    currency text NOT NULL,
    payment_method_id text COLLATE "C" NOT NULL,
    provider text NOT NULL,
    state text NOT NULL CONSTRAINT state_known
        CHECK (state IN ('pending', 'processing', 'unknown', 'succeeded', 'failed')),
    next_attempt_time timestamptz,
    create_time timestamptz NOT NULL,
    complete_time timestamptz,
    PRIMARY KEY (customer_id, id),
    FOREIGN KEY (customer_id, payment_method_id) REFERENCES payment_methods (customer_id, id)
);
CREATE UNIQUE INDEX payments_by_id ON payments (id);
CREATE INDEX payments_by_invoice ON payments (invoice_id, id);
CREATE UNIQUE INDEX payments_one_per_invoice ON payments (invoice_id) WHERE invoice_id <> '' AND state <> 'failed';

CREATE TABLE payment_attempts (
    customer_id text COLLATE "C",
    payment_id text COLLATE "C",
    number integer,
    state text NOT NULL CONSTRAINT state_known CHECK (state IN ('started', 'succeeded', 'failed', 'unknown')),
    idempotency_key text NOT NULL UNIQUE,
    provider_reference text NOT NULL,
    failure_reason text NOT NULL,
    start_time timestamptz NOT NULL,
    end_time timestamptz,
    PRIMARY KEY (customer_id, payment_id, number),
    FOREIGN KEY (customer_id, payment_id) REFERENCES payments (customer_id, id)
);
CREATE UNIQUE INDEX payment_attempts_one_open ON payment_attempts (customer_id, payment_id)
    WHERE state IN ('started', 'unknown');
"""

SANDBOX = """
CREATE TABLE sandbox_charges (
    idempotency_key text PRIMARY KEY,
    id text NOT NULL,
    reference text NOT NULL,
    token text NOT NULL,
    amount numeric NOT NULL,
    currency text NOT NULL,
    decline_reason text NOT NULL,
    create_time timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX sandbox_charges_by_reference ON sandbox_charges (reference);
"""


def upgrade() -> None:
    """Create."""
    create_kit_tables(op)
    op.execute(PAYMENTS)
    op.execute(SANDBOX)


def downgrade() -> None:
    """There is nothing before the first revision."""
    raise NotImplementedError("the first revision has none before it: drop the schema instead")
