"""The tables of usage. What belongs to a customer has the customer's number at the head of its primary key.

Every row that moves totals carries `tx`, the id of the transaction that wrote it, and `generation`, which grows when a
restore into another cluster makes those ids begin anew: the rollup takes rows in the order of (generation, tx).
"""

from collections.abc import Callable
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, JSONPATH
from sqlalchemy.types import UserDefinedType

from services.kit.tables import outbox_tables

metadata: Final = sa.MetaData()
outbox_tables(metadata)

# Compared byte by byte, so that keyset paging has one order whatever the server's locale.
_ID: Final = sa.Text(collation="C")
_TIME: Final = sa.DateTime(timezone=True)


class Xid8(UserDefinedType[int]):
    """PostgreSQL's 64-bit transaction id, an int here; it travels as text."""

    cache_ok = True

    def get_col_spec(self, **_options: Any) -> str:
        """Name the type."""
        return "xid8"

    def bind_processor(self, dialect: sa.Dialect) -> Callable[[int | None], str | None]:  # noqa: ARG002
        """Write it."""
        return lambda value: None if value is None else str(value)

    def bind_expression(self, bindvalue: sa.BindParameter[int]) -> sa.ColumnElement[int]:
        """Say what the text is."""
        return sa.cast(bindvalue, self)

    def result_processor(self, dialect: sa.Dialect, coltype: object) -> Callable[[str | None], int | None]:  # noqa: ARG002
        """Read it."""
        return lambda value: None if value is None else int(value)


def _state() -> list[sa.Column[Any]]:
    """What an aggregation knows of a set of events; each one uses those that it needs. States merge."""
    return [
        sa.Column("count", sa.BigInteger, nullable=False),
        sa.Column("sum", sa.Numeric, nullable=False),
        sa.Column("min", sa.Numeric),
        sa.Column("max", sa.Numeric),
        sa.Column("latest_time", _TIME),
        sa.Column("latest_id", _ID),
        sa.Column("latest_value", sa.Numeric),
    ]


def _group() -> list[sa.Column[Any]]:
    """The digest of the group-by attributes' values, all zero without, and the values."""
    return [sa.Column("group_key", sa.Uuid, primary_key=True), sa.Column("group_values", JSONB)]


customers: Final = sa.Table(
    "customers",
    metadata,
    sa.Column("number", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("id", _ID, nullable=False, unique=True),
    sa.Column("revision", sa.BigInteger, nullable=False),
    sa.Column("time_zone", sa.Text, nullable=False),
    sa.Column("has_plan", sa.Boolean, nullable=False),
)

customer_keys: Final = sa.Table(
    "customer_keys",
    metadata,
    sa.Column("key", _ID, primary_key=True),
    sa.Column("customer", sa.ForeignKey("customers.number"), nullable=False),
    sa.Index("customer_keys_by_customer", "customer"),
)

# Billing periods. Between them, and without any, usage counts by calendar month of the customer's time zone.
periods: Final = sa.Table(
    "periods",
    metadata,
    sa.Column("customer", sa.ForeignKey("customers.number"), primary_key=True),
    sa.Column("start_time", _TIME, primary_key=True),
    sa.Column("end_time", _TIME, sa.CheckConstraint("end_time > start_time"), nullable=False),
)

limits: Final = sa.Table(
    "limits",
    metadata,
    sa.Column("customer", sa.ForeignKey("customers.number"), primary_key=True),
    # By id: a plan may limit a meter that is created later.
    sa.Column("meter", _ID, primary_key=True),
    sa.Column("amount", sa.Numeric, sa.CheckConstraint("amount >= 0"), nullable=False),
    sa.Column("kind", sa.Text, sa.CheckConstraint("kind IN ('HARD', 'SOFT')"), nullable=False),
    sa.Column("thresholds", ARRAY(sa.Integer), nullable=False),
)

# Of customers without a plan, where no limit of their own stands before it. Hard. From the worker's settings.
default_limits: Final = sa.Table(
    "default_limits",
    metadata,
    sa.Column("meter", _ID, primary_key=True),
    sa.Column("amount", sa.Numeric, sa.CheckConstraint("amount >= 0"), nullable=False),
    sa.Column("thresholds", ARRAY(sa.Integer), nullable=False),
)

# Locked while quota of a customer and meter is set aside, used or given back; `version` grows each time.
quotas: Final = sa.Table(
    "quotas",
    metadata,
    sa.Column("customer", sa.BigInteger, primary_key=True),
    sa.Column("meter", sa.Integer, primary_key=True),
    sa.Column("version", sa.BigInteger, nullable=False),
    # The version that the live counters have.
    sa.Column("published", sa.BigInteger, nullable=False),
    sa.Index("quotas_unpublished", "customer", "meter", postgresql_where=sa.text("version <> published")),
)

_counts: Final = sa.text("counts")
reservations: Final = sa.Table(
    "reservations",
    metadata,
    sa.Column("customer", sa.BigInteger, primary_key=True),
    sa.Column("id", _ID, primary_key=True),
    sa.Column("meter", sa.Integer, nullable=False),
    sa.Column("quantity", sa.Numeric, sa.CheckConstraint("quantity > 0"), nullable=False),
    sa.Column(
        "state",
        sa.Text,
        sa.CheckConstraint("state IN ('OPEN', 'COMMITTED', 'RELEASED', 'EXPIRED')"),
        nullable=False,
    ),
    # Whether it is set aside still; but from `counts_until` on it is not, even before a sweep says so here.
    sa.Column("counts", sa.Boolean, nullable=False),
    sa.Column("counts_until", _TIME, nullable=False),
    sa.Column("create_time", _TIME, nullable=False),
    sa.Column("expire_time", _TIME, nullable=False),
    # The digest of the source and id of the event that reports the use: of a committed one.
    sa.Column("event", sa.Uuid),
    sa.Column("event_source", _ID),
    sa.Column("event_id", _ID),
    sa.Column("ended_at", _TIME),
    sa.Index("reservations_counting", "customer", "meter", postgresql_where=_counts),
    sa.Index("reservations_ending", "counts_until", postgresql_where=_counts),
    sa.Index("reservations_committed", "customer", "event", postgresql_where=sa.text("counts AND state = 'COMMITTED'")),
    sa.Index("reservations_ended", "ended_at", postgresql_where=sa.text("NOT counts")),
)

# Period boundaries inside a quarter of an hour: buckets of that quarter are cut there.
edges: Final = sa.Table(
    "edges",
    metadata,
    sa.Column("customer", sa.BigInteger, primary_key=True),
    sa.Column("quarter", _TIME, primary_key=True),
    sa.Column("time", _TIME, primary_key=True),
    sa.Column("tx", Xid8, nullable=False),
    sa.Column("generation", sa.Integer, nullable=False),
    sa.Index("edges_tx", "tx"),
)

# What changed of a customer: the rollup judges its limits anew, and sets its period totals from `recount_from` on.
changes: Final = sa.Table(
    "changes",
    metadata,
    sa.Column("customer", sa.BigInteger, primary_key=True),
    sa.Column("generation", sa.Integer, primary_key=True),
    sa.Column("tx", Xid8, primary_key=True),
    sa.Column("recount_from", _TIME),
    # The W3C trace context of who changed it: signals of the change continue it.
    sa.Column("context", JSONB, nullable=False),
    sa.Column("created_at", _TIME, nullable=False, server_default=sa.text("now()")),
    sa.Index("changes_tx", "tx"),
)

meters: Final = sa.Table(
    "meters",
    metadata,
    sa.Column("number", sa.Integer, sa.Identity(always=True), primary_key=True),
    sa.Column("id", _ID, nullable=False, unique=True),
    sa.Column("event_type", _ID, nullable=False),
    sa.Column(
        "aggregation",
        sa.Text,
        sa.CheckConstraint("aggregation IN ('COUNT', 'SUM', 'MAX', 'MIN', 'AVG', 'UNIQUE', 'LATEST')"),
        nullable=False,
    ),
    sa.Column("quantity", _ID, nullable=False),
    # Of UNIQUE: whose values are counted.
    sa.Column("attribute", _ID, nullable=False, server_default=""),
    # As they were given, and as one condition on an event's attributes; null for none.
    sa.Column("filters", JSONB, nullable=False, server_default="[]"),
    sa.Column("filter", JSONPATH),
    sa.Column("group_by", ARRAY(sa.Text), nullable=False, server_default="{}"),
    sa.Column("unit", sa.Text, nullable=False),
    sa.Column("description", sa.Text, nullable=False, server_default=""),
    sa.Column("create_time", _TIME, nullable=False),
    # It counts events from here on; of those before, by recounts, what happened at `count_from` or later.
    sa.Column("from_tx", Xid8, nullable=False),
    sa.Column("generation", sa.Integer, nullable=False),
    sa.Column("count_from", _TIME),
    # Seals that were frozen before this instant were so before it counted those earlier events: no invoice has them.
    sa.Column("sealed_before", _TIME),
    # It counts no event from here on: it is archived.
    sa.Column("archive_time", _TIME),
    sa.Column("until_tx", Xid8),
    sa.Column("until_generation", sa.Integer),
    sa.Index("meters_by_event_type", "event_type"),
)

# Counting a meter's stored events, customer by customer; `customer` and `next_time` say how far it came.
recounts: Final = sa.Table(
    "recounts",
    metadata,
    sa.Column("number", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("meter", sa.Integer, nullable=False),
    sa.Column("state", sa.Text, sa.CheckConstraint("state IN ('RUNNING', 'DONE')"), nullable=False),
    sa.Column("start_time", _TIME, nullable=False),
    sa.Column("end_time", _TIME, nullable=False),
    sa.Column("customer", sa.BigInteger, nullable=False),
    sa.Column("next_time", _TIME, nullable=False),
    sa.Column("customers_total", sa.BigInteger, nullable=False),
    sa.Column("customers_done", sa.BigInteger, nullable=False),
    sa.Column("events_done", sa.BigInteger, nullable=False),
    sa.Column("created_at", _TIME, nullable=False),
    sa.Column("ended_at", _TIME),
    sa.Index("recounts_by_meter", "meter", "number"),
    sa.Index("recounts_running", "meter", unique=True, postgresql_where=sa.text("state = 'RUNNING'")),
)

# What a recount asks the rollup to set: a meter's totals of a customer in whole quarters of an hour.
recount_slices: Final = sa.Table(
    "recount_slices",
    metadata,
    sa.Column("recount", sa.BigInteger, primary_key=True),
    sa.Column("customer", sa.BigInteger, primary_key=True),
    sa.Column("start_time", _TIME, primary_key=True),
    sa.Column("end_time", _TIME, nullable=False),
    sa.Column("meter", sa.Integer, nullable=False),
    sa.Column("tx", Xid8, nullable=False),
    sa.Column("generation", sa.Integer, nullable=False),
    sa.Index("recount_slices_tx", "tx"),
)

# Identities. Partitioned by hash of the customer.
event_keys: Final = sa.Table(
    "event_keys",
    metadata,
    sa.Column("customer", sa.BigInteger, primary_key=True),
    sa.Column("digest", sa.Uuid, primary_key=True),
    sa.Column("content", sa.Uuid, nullable=False),
    sa.Column("time", _TIME, nullable=False),
    postgresql_partition_by="HASH (customer)",
)

# Partitioned by month of `time`, with a default partition. Identities are unique in event_keys: another unique index
# here would cost a third of ingest.
events: Final = sa.Table(
    "events",
    metadata,
    sa.Column("customer", sa.BigInteger, nullable=False),
    sa.Column("time", _TIME, nullable=False),
    sa.Column("digest", sa.Uuid, nullable=False),
    sa.Column("tx", Xid8, nullable=False),
    # The seal that it came too late for; 0 for none.
    sa.Column("seal", sa.BigInteger, nullable=False),
    # Of the span that took it in: with the trace id, the parent of a signal that it raises.
    sa.Column("span_id", sa.BigInteger),
    sa.Column("trace_id", sa.Uuid),
    sa.Column("received", _TIME, nullable=False),
    sa.Column("generation", sa.Integer, nullable=False),
    # Its trace is kept, as one of the customer's and day's.
    sa.Column("sampled", sa.Boolean, nullable=False),
    sa.Column("id", _ID, nullable=False),
    sa.Column("source", _ID, nullable=False),
    sa.Column("type", _ID, nullable=False),
    sa.Column("quantities", JSONB),
    sa.Column("attributes", JSONB),
    sa.Index("events_by_time", "customer", "time"),
    sa.Index("events_tx", "tx"),
    sa.Index("events_sampled", "tx", postgresql_where=sa.text("sampled")),
    postgresql_partition_by="RANGE (time)",
)

# Events that count no more: amended (another event counts instead) or cancelled. What counts is written in store/counted.
corrections: Final = sa.Table(
    "corrections",
    metadata,
    sa.Column("customer", sa.BigInteger, primary_key=True),
    # Of the corrected event: its identity and time.
    sa.Column("digest", sa.Uuid, primary_key=True),
    sa.Column("time", _TIME, nullable=False),
    sa.Column("tx", Xid8, nullable=False),
    sa.Column("generation", sa.Integer, nullable=False),
    # The seal whose totals, or late usage, have the corrected event in them: what the correction adjusts; 0 for none.
    sa.Column("seal", sa.BigInteger, nullable=False),
    sa.Column("event_type", _ID, nullable=False),
    sa.Column("kind", sa.Text, sa.CheckConstraint("kind IN ('AMEND', 'CANCEL')"), nullable=False),
    sa.Column("id", _ID, nullable=False),
    sa.Column("source", _ID, nullable=False),
    # The identity of the event that counts instead; empty names for a cancel.
    sa.Column("superseding", sa.Uuid, sa.CheckConstraint("(kind = 'AMEND') = (superseding IS NOT NULL)")),
    sa.Column("superseding_id", _ID, nullable=False),
    sa.Column("superseding_source", _ID, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    # The W3C trace context of who corrected it.
    sa.Column("context", JSONB, nullable=False),
    sa.Column("created_at", _TIME, nullable=False),
    sa.Index("corrections_tx", "tx"),
    sa.Index("corrections_by_time", "customer", "time", "digest"),
    sa.Index(
        "corrections_by_superseding",
        "customer",
        "superseding",
        unique=True,
        postgresql_where=sa.text("superseding IS NOT NULL"),
    ),
    sa.Index("corrections_by_seal", "customer", "seal", postgresql_where=sa.text("seal <> 0")),
)

_held: Final = sa.text("refusal IS NULL")
quarantine: Final = sa.Table(
    "quarantine",
    metadata,
    # Of the customer as it was named, source and id: no customer's key is reserved.
    sa.Column("digest", sa.Uuid, primary_key=True),
    sa.Column("content", sa.Uuid, primary_key=True),
    sa.Column("received", _TIME, nullable=False),
    sa.Column("customer_id", _ID, nullable=False),
    sa.Column("customer_key", _ID, nullable=False),
    sa.Column("id", _ID, nullable=False),
    sa.Column("source", _ID, nullable=False),
    sa.Column("type", _ID, nullable=False),
    sa.Column("time", _TIME, nullable=False),
    sa.Column("quantities", JSONB),
    sa.Column("attributes", JSONB),
    sa.Column("trace_id", sa.Uuid),
    sa.Column("span_id", sa.BigInteger),
    sa.Column("reason", sa.Text, nullable=False),
    # Why a replay refused it for good; it is kept for people to look at.
    sa.Column("refusal", sa.Text),
    sa.Column("refused_at", _TIME),
    sa.Index("quarantine_held", "received", "digest", "content", postgresql_where=_held),
    sa.Index("quarantine_by_key", "customer_key", postgresql_where=_held),
    sa.Index("quarantine_by_customer", "customer_id", postgresql_where=_held),
)

# Of quarters of an hour (UTC), cut at edges. `seal` as in events; -1 for what a meter counted only after the seal that it
# would belong to: it is shown and never billed.
bucket_totals: Final = sa.Table(
    "bucket_totals",
    metadata,
    sa.Column("customer", sa.BigInteger, primary_key=True),
    sa.Column("meter", sa.Integer, primary_key=True),
    sa.Column("start_time", _TIME, primary_key=True),
    sa.Column("seal", sa.BigInteger, primary_key=True),
    *_group(),
    *_state(),
    sa.Index("bucket_totals_late", "customer", "seal", postgresql_where=sa.text("seal <> 0")),
)

# Digests of the values that UNIQUE meters saw, by bucket: sets of them merge without counting any value twice.
bucket_values: Final = sa.Table(
    "bucket_values",
    metadata,
    sa.Column("customer", sa.BigInteger, primary_key=True),
    sa.Column("meter", sa.Integer, primary_key=True),
    sa.Column("digest", sa.Uuid, primary_key=True),
    sa.Column("start_time", _TIME, primary_key=True),
    sa.Column("seal", sa.BigInteger, primary_key=True),
    sa.Column("group_key", sa.Uuid, primary_key=True),
    sa.Index("bucket_values_by_time", "customer", "meter", "start_time"),
)

# Of UNIQUE, `sum` is how many of the period's values no other row of it has counted.
period_totals: Final = sa.Table(
    "period_totals",
    metadata,
    sa.Column("customer", sa.BigInteger, primary_key=True),
    sa.Column("meter", sa.Integer, primary_key=True),
    sa.Column("period_start", _TIME, primary_key=True),
    sa.Column("seal", sa.BigInteger, primary_key=True),
    *_group(),
    *_state(),
    # The rollup's place when it last moved: counters are published above a place.
    sa.Column("generation", sa.Integer, nullable=False),
    sa.Column("position", Xid8, nullable=False),
)

# Thresholds that were crossed; each raises one signal.
thresholds: Final = sa.Table(
    "thresholds",
    metadata,
    sa.Column("customer", sa.BigInteger, primary_key=True),
    sa.Column("meter", sa.Integer, primary_key=True),
    sa.Column("period_start", _TIME, primary_key=True),
    sa.Column("threshold", sa.Integer, primary_key=True),
    sa.Column("used", sa.Numeric, nullable=False),
    sa.Column("amount", sa.Numeric, nullable=False),
    sa.Column("crossed_at", _TIME, nullable=False, server_default=sa.text("now()")),
)

# One kept trace a customer, meter and day (UTC), for invoice lines to point to.
trace_samples: Final = sa.Table(
    "trace_samples",
    metadata,
    sa.Column("customer", sa.BigInteger, primary_key=True),
    sa.Column("meter", sa.Integer, primary_key=True),
    sa.Column("day", sa.Date, primary_key=True),
    sa.Column("seal", sa.BigInteger, primary_key=True),
    sa.Column("time", _TIME, nullable=False),
    sa.Column("trace_id", sa.Uuid, nullable=False),
)

seals: Final = sa.Table(
    "seals",
    metadata,
    sa.Column("customer", sa.ForeignKey("customers.number"), primary_key=True),
    sa.Column("end_time", _TIME, primary_key=True),
    sa.Column("number", sa.BigInteger, sa.Identity(always=True), unique=True),
    sa.Column("id", _ID, nullable=False, unique=True),
    sa.Column("start_time", _TIME, nullable=False),
    # Where its totals begin: the end of the seal before it.
    sa.Column("from_time", _TIME, nullable=False),
    sa.Column("created_at", _TIME, nullable=False, server_default=sa.text("now()")),
    # When the totals were copied; nothing changes them afterwards.
    sa.Column("sealed_at", _TIME),
    sa.Index("seals_by_end", "end_time"),
)

sealed_totals: Final = sa.Table(
    "sealed_totals",
    metadata,
    sa.Column("customer", sa.BigInteger, primary_key=True),
    sa.Column("seal", sa.BigInteger, primary_key=True),
    sa.Column("meter", sa.Integer, primary_key=True),
    *_group(),
    *_state(),
    # Of UNIQUE: how many of the group's values no other group of the meter has counted. These add up, `sum` does not.
    sa.Column("own_values", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("trace_ids", ARRAY(sa.Uuid), nullable=False),
)

generations: Final = sa.Table(
    "generations",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    # Of the cluster whose transaction ids it counts by (pg_control_system).
    sa.Column("system_identifier", sa.BigInteger, nullable=False),
    sa.Column("raised_at", _TIME, nullable=False, server_default=sa.text("now()")),
)

# Quarters of an hour (UTC) whose bucket totals are not what a recount of the raw events gives; each raised one signal.
drifts: Final = sa.Table(
    "drifts",
    metadata,
    sa.Column("customer", sa.BigInteger, primary_key=True),
    sa.Column("quarter", _TIME, primary_key=True),
    # Each differing total as it is stored and as it was counted.
    sa.Column("differences", JSONB, nullable=False),
    sa.Column("found_at", _TIME, nullable=False),
)

# How far the rollup came: every row with (generation, tx) below (generation, last) is in the totals.
rollups: Final = sa.Table(
    "rollups",
    metadata,
    sa.Column("stripe", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("generation", sa.Integer, nullable=False),
    sa.Column("last", Xid8, nullable=False),
    # Every event acknowledged before it is in the totals.
    sa.Column("as_of", _TIME, nullable=False),
    # How far the live counters came.
    sa.Column("published_generation", sa.Integer, nullable=False),
    sa.Column("published", Xid8, nullable=False),
)

# Stored instants that never move back. `accepted_from`: older events are refused, unless they are stored already.
floors: Final = sa.Table(
    "floors",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("time", _TIME, nullable=False),
)

# What a period was last priced as, and from which usage: `digest` of it says whether it moved since.
cost_periods: Final = sa.Table(
    "cost_periods",
    metadata,
    sa.Column("customer", sa.BigInteger, primary_key=True),
    sa.Column("period_start", _TIME, primary_key=True),
    sa.Column("period_end", _TIME, nullable=False),
    # Empty without a plan; so is the currency then.
    sa.Column("plan_id", _ID, nullable=False),
    sa.Column("plan_version", sa.Integer, nullable=False),
    sa.Column("currency", sa.Text, nullable=False),
    sa.Column("digest", sa.Uuid, nullable=False),
    # Every event acknowledged before it is priced.
    sa.Column("as_of", _TIME, nullable=False),
    # Whether the signal was raised that it costs far more than the period before.
    sa.Column("spike_told", sa.Boolean, nullable=False, server_default=sa.text("false")),
)

# By day of the customer's zone; a day on which nothing moved has no row.
daily_costs: Final = sa.Table(
    "daily_costs",
    metadata,
    sa.Column("customer", sa.BigInteger, primary_key=True),
    sa.Column("day", sa.Date, primary_key=True),
    sa.Column("period_start", _TIME, primary_key=True),
    sa.Column("component", _ID, primary_key=True),
    sa.Column("display_name", sa.Text, nullable=False),
    # Empty on a flat fee.
    sa.Column("meter", _ID, nullable=False),
    # What the period had used through the day.
    sa.Column("quantity", sa.Numeric, nullable=False),
    # Before rounding.
    sa.Column("amount", sa.Numeric, nullable=False),
    sa.ForeignKeyConstraint(
        ["customer", "period_start"], ["cost_periods.customer", "cost_periods.period_start"], ondelete="CASCADE"
    ),
    sa.Index("daily_costs_by_period", "customer", "period_start"),
)

# Up to which place of the rollup totals are priced: one row.
costing: Final = sa.Table(
    "costing",
    metadata,
    sa.Column("stripe", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("generation", sa.Integer, nullable=False),
    sa.Column("position", Xid8, nullable=False),
)

# Reports that a job makes.
reports: Final = sa.Table(
    "reports",
    metadata,
    sa.Column("customer", sa.BigInteger, primary_key=True),
    sa.Column("id", _ID, primary_key=True),
    sa.Column("start_time", _TIME, nullable=False),
    sa.Column("end_time", _TIME, nullable=False),
    sa.Column("state", sa.Text, sa.CheckConstraint("state IN ('RUNNING', 'READY', 'FAILED')"), nullable=False),
    sa.Column("progress", sa.Integer, nullable=False),
    sa.Column("error", sa.Text, nullable=False),
    # The message UsageReport, when READY.
    sa.Column("report", sa.LargeBinary),
    sa.Column("created_at", _TIME, nullable=False),
    sa.Column("finished_at", _TIME),
    sa.Index("reports_by_creation", "created_at"),
)

anomalies: Final = sa.Table(
    "anomalies",
    metadata,
    sa.Column("customer", sa.BigInteger, primary_key=True),
    sa.Column("id", _ID, primary_key=True),
    sa.Column("meter", sa.Integer, nullable=False),
    sa.Column("kind", sa.Text, sa.CheckConstraint("kind IN ('SPIKE', 'DROP')"), nullable=False),
    # The newest window that showed it.
    sa.Column("start_time", _TIME, nullable=False),
    sa.Column("end_time", _TIME, nullable=False),
    sa.Column("finding", JSONB, nullable=False),
    sa.Column("created_at", _TIME, nullable=False),
    sa.Index("anomalies_by_id", "id", unique=True),
    sa.Index("anomalies_by_window", "customer", "meter", "kind", "end_time"),
)
