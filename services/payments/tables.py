"""The tables of payments. Every key begins with the customer, so that customers can be spread over databases."""

from typing import Final

import sqlalchemy as sa

from services.kit.tables import outbox_tables
from services.payments.domain.payment import AttemptState, PaymentState

metadata: Final = sa.MetaData()
outbox_tables(metadata)

# Compared byte by byte, so that keyset paging has one order whatever the server's locale.
_ID: Final = sa.Text(collation="C")
_TIME: Final = sa.DateTime(timezone=True)


def _one_of(column: str, values: type[AttemptState] | type[PaymentState]) -> sa.CheckConstraint:
    listed = ", ".join(f"'{value}'" for value in values)
    return sa.CheckConstraint(f"{column} IN ({listed})", name=f"{column}_known")


payment_methods: Final = sa.Table(
    "payment_methods",
    metadata,
    sa.Column("customer_id", _ID, primary_key=True),
    sa.Column("id", _ID, primary_key=True),
    sa.Column("provider", sa.Text, nullable=False),
    sa.Column("provider_token", sa.Text, nullable=False),
    sa.Column("create_time", _TIME, nullable=False),
)

# A row of its own rather than a flag on the method: the primary key lets a customer have one default and no more.
default_methods: Final = sa.Table(
    "default_methods",
    metadata,
    sa.Column("customer_id", _ID, primary_key=True),
    sa.Column("payment_method_id", _ID, nullable=False),
    sa.ForeignKeyConstraint(
        ["customer_id", "payment_method_id"], ["payment_methods.customer_id", "payment_methods.id"]
    ),
)

# An invoice is collected once, whoever asks and under whatever request id.
ONE_PER_INVOICE: Final = sa.text("invoice_id <> '' AND state <> 'failed'")

payments: Final = sa.Table(
    "payments",
    metadata,
    sa.Column("customer_id", _ID, primary_key=True),
    sa.Column("id", _ID, primary_key=True),
    sa.Column("invoice_id", _ID, nullable=False),
    sa.Column("amount", sa.Numeric, sa.CheckConstraint("amount > 0", name="amount_positive"), nullable=False),
    sa.Column("currency", sa.Text, nullable=False),
    sa.Column("payment_method_id", _ID, nullable=False),
    sa.Column("provider", sa.Text, nullable=False),
    sa.Column("state", sa.Text, _one_of("state", PaymentState), nullable=False),
    sa.Column("next_attempt_time", _TIME),
    sa.Column("create_time", _TIME, nullable=False),
    sa.Column("complete_time", _TIME),
    sa.ForeignKeyConstraint(
        ["customer_id", "payment_method_id"], ["payment_methods.customer_id", "payment_methods.id"]
    ),
    sa.Index("payments_by_id", "id", unique=True),
    sa.Index("payments_by_invoice", "invoice_id", "id"),
    sa.Index("payments_one_per_invoice", "invoice_id", unique=True, postgresql_where=ONE_PER_INVOICE),
)

payment_attempts: Final = sa.Table(
    "payment_attempts",
    metadata,
    sa.Column("customer_id", _ID, primary_key=True),
    sa.Column("payment_id", _ID, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("state", sa.Text, _one_of("state", AttemptState), nullable=False),
    sa.Column("idempotency_key", sa.Text, nullable=False, unique=True),
    sa.Column("provider_reference", sa.Text, nullable=False),
    sa.Column("failure_reason", sa.Text, nullable=False),
    sa.Column("start_time", _TIME, nullable=False),
    sa.Column("end_time", _TIME),
    sa.ForeignKeyConstraint(["customer_id", "payment_id"], ["payments.customer_id", "payments.id"]),
    # The state machine allows one open attempt; should it ever be wrong, the second charge fails here.
    sa.Index(
        "payment_attempts_one_open",
        "customer_id",
        "payment_id",
        unique=True,
        postgresql_where=sa.text("state IN ('started', 'unknown')"),
    ),
)
