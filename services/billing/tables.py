"""The tables of billing. The migrations make them; constraints that no column can say stand there as triggers."""

from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from services.kit.tables import outbox_tables

metadata: Final = sa.MetaData()
outbox_tables(metadata)

# Compared byte by byte, so that keyset paging has one order whatever the server's locale.
_Name: Final = sa.Text(collation="C")
_Timestamp: Final = sa.DateTime(timezone=True)
_Amount: Final = sa.Numeric()
_OPEN_OR_DONE: Final = sa.text("state IN ('OPEN', 'INVOICED')")

customers: Final = sa.Table(
    "customers",
    metadata,
    sa.Column("id", _Name, primary_key=True),
    sa.Column("external_key", sa.Text, nullable=False),
    sa.Column("display_name", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("currency", sa.Text, nullable=False),
    sa.Column("time_zone", sa.Text, nullable=False),
    # Grows with each change that usage has to know.
    sa.Column("revision", sa.BigInteger, nullable=False),
    sa.Column("create_time", _Timestamp, nullable=False),
    sa.Index("customers_external_key", "external_key", unique=True, postgresql_where=sa.text("external_key <> ''")),
)

plan_versions: Final = sa.Table(
    "plan_versions",
    metadata,
    sa.Column("plan_id", _Name, primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True),
    sa.Column("terms", JSONB, nullable=False),
    sa.Column("create_time", _Timestamp, nullable=False),
)

subscriptions: Final = sa.Table(
    "subscriptions",
    metadata,
    sa.Column("customer_id", _Name, sa.ForeignKey("customers.id"), primary_key=True),
    sa.Column("id", _Name, primary_key=True),
    sa.Column("plan_id", _Name, nullable=False),
    sa.Column("plan_version", sa.Integer, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("start_time", _Timestamp, nullable=False),
    sa.Column("time_zone", sa.Text, nullable=False),
    # The first period that is not invoiced, and its end.
    sa.Column("period_number", sa.Integer, nullable=False),
    sa.Column("period_end", _Timestamp, nullable=False),
    # The end of the last period that usage was told of.
    sa.Column("entitled_until", _Timestamp, nullable=False),
    sa.Column("create_time", _Timestamp, nullable=False),
    sa.ForeignKeyConstraint(["plan_id", "plan_version"], ["plan_versions.plan_id", "plan_versions.version"]),
    sa.Index("subscriptions_id", "id", unique=True),
    sa.Index("subscriptions_running", "customer_id", unique=True, postgresql_where=sa.text("state = 'ACTIVE'")),
    sa.Index("subscriptions_due", "period_end", postgresql_where=sa.text("state = 'ACTIVE'")),
    sa.Index("subscriptions_entitled", "entitled_until", postgresql_where=sa.text("state = 'ACTIVE'")),
)

bill_runs: Final = sa.Table(
    "bill_runs",
    metadata,
    sa.Column("id", _Name, primary_key=True),
    sa.Column("as_of", _Timestamp, nullable=False),
    # Subscriptions up to this id have been looked at; NULL when all have been.
    sa.Column("planned_to", _Name),
    sa.Column("trace_id", sa.Text, nullable=False),
    sa.Column("create_time", _Timestamp, nullable=False),
)

bill_run_items: Final = sa.Table(
    "bill_run_items",
    metadata,
    sa.Column("customer_id", _Name, primary_key=True),
    sa.Column("subscription_id", _Name, primary_key=True),
    sa.Column("period_start", _Timestamp, primary_key=True),
    sa.Column("bill_run_id", _Name, sa.ForeignKey("bill_runs.id"), primary_key=True),
    sa.Column("period_number", sa.Integer, nullable=False),
    sa.Column("period_end", _Timestamp, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    # The last failure, for people.
    sa.Column("message", sa.Text, nullable=False),
    sa.Column("end_time", _Timestamp),
    sa.CheckConstraint("state IN ('OPEN', 'INVOICED', 'FAILED')", name="bill_run_items_state"),
    # A period is billed by one run; only one that failed for good may be taken up by another.
    sa.Index("bill_run_items_once", "subscription_id", "period_start", unique=True, postgresql_where=_OPEN_OR_DONE),
    sa.Index("bill_run_items_run", "bill_run_id", "state"),
)

invoices: Final = sa.Table(
    "invoices",
    metadata,
    sa.Column("customer_id", _Name, sa.ForeignKey("customers.id"), primary_key=True),
    sa.Column("id", _Name, primary_key=True),
    sa.Column("seller", sa.Text, nullable=False),
    sa.Column("number", sa.Text, nullable=False),
    sa.Column("customer_display_name", sa.Text, nullable=False),
    sa.Column("subscription_id", _Name, nullable=False),
    sa.Column("plan_id", _Name, nullable=False),
    sa.Column("plan_version", sa.Integer, nullable=False),
    sa.Column("bill_run_id", _Name, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("currency", sa.Text, nullable=False),
    sa.Column("period_start", _Timestamp, nullable=False),
    sa.Column("period_end", _Timestamp, nullable=False),
    sa.Column("subtotal", _Amount, nullable=False),
    sa.Column("tax", _Amount, nullable=False),
    sa.Column("total", _Amount, nullable=False),
    sa.Column("amount_due", _Amount, nullable=False),
    sa.Column("seal_id", sa.Text, nullable=False),
    sa.Column("payment_id", sa.Text, nullable=False),
    sa.Column("trace_id", sa.Text, nullable=False),
    sa.Column("finalize_time", _Timestamp),
    sa.Column("paid_time", _Timestamp),
    sa.CheckConstraint("state IN ('DRAFT', 'FINALIZED', 'PAID', 'VOID', 'UNCOLLECTIBLE')", name="invoices_state"),
    sa.CheckConstraint("(number = '') = (state = 'DRAFT')", name="invoices_numbered"),
    sa.CheckConstraint("total = subtotal + tax", name="invoices_total"),
    sa.CheckConstraint("amount_due >= 0", name="invoices_amount_due"),
    sa.Index("invoices_id", "id", unique=True),
    sa.Index("invoices_period", "subscription_id", "period_start", unique=True),
    sa.Index("invoices_number", "seller", "number", unique=True, postgresql_where=sa.text("number <> ''")),
    sa.Index("invoices_bill_run", "bill_run_id", "id"),
)

invoice_lines: Final = sa.Table(
    "invoice_lines",
    metadata,
    sa.Column("customer_id", _Name, primary_key=True),
    sa.Column("invoice_id", _Name, primary_key=True),
    sa.Column("position", sa.Integer, primary_key=True),
    sa.Column("component_id", sa.Text, nullable=False),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("meter", sa.Text, nullable=False),
    sa.Column("quantity", _Amount, nullable=False),
    sa.Column("unit", sa.Text, nullable=False),
    sa.Column("unit_price", _Amount),
    sa.Column("per", _Amount),
    sa.Column("included", _Amount),
    sa.Column("precise_amount", _Amount, nullable=False),
    sa.Column("amount", _Amount, nullable=False),
    sa.Column("tax_amount", _Amount, nullable=False),
    sa.Column("tiers", JSONB, nullable=False),
    sa.Column("event_count", sa.BigInteger, nullable=False),
    sa.Column("sample_trace_ids", ARRAY(sa.Text), nullable=False),
    sa.Column("period_start", _Timestamp, nullable=False),
    sa.Column("period_end", _Timestamp, nullable=False),
    sa.Column("priced_quantity", _Amount, nullable=False),
    sa.Column("billed_before", _Amount, nullable=False),
    sa.ForeignKeyConstraint(["customer_id", "invoice_id"], ["invoices.customer_id", "invoices.id"]),
)

invoice_series: Final = sa.Table(
    "invoice_series",
    metadata,
    sa.Column("seller", sa.Text, primary_key=True),
    sa.Column("fiscal_year", sa.Text, primary_key=True),
    sa.Column("last", sa.BigInteger, nullable=False),
)

ledger_transactions: Final = sa.Table(
    "ledger_transactions",
    metadata,
    sa.Column("customer_id", _Name, primary_key=True),
    sa.Column("id", _Name, primary_key=True),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("invoice_id", _Name, nullable=False),
    sa.Column("payment_id", sa.Text, nullable=False),
    sa.Column("create_time", _Timestamp, nullable=False),
)

ledger_entries: Final = sa.Table(
    "ledger_entries",
    metadata,
    sa.Column("customer_id", _Name, primary_key=True),
    sa.Column("id", _Name, primary_key=True),
    sa.Column("transaction_id", _Name, nullable=False),
    sa.Column("account", _Name, nullable=False),
    sa.Column("currency", sa.Text, nullable=False),
    # Debit when positive, credit when negative.
    sa.Column("amount", _Amount, nullable=False),
    sa.ForeignKeyConstraint(
        ["customer_id", "transaction_id"], ["ledger_transactions.customer_id", "ledger_transactions.id"]
    ),
    sa.Index("ledger_entries_transaction", "customer_id", "transaction_id"),
    sa.Index("ledger_entries_account", "account", "id"),
)
