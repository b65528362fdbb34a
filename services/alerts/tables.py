"""The tables of alerts. Keys begin with the customer, where there is one, so that customers can be spread out."""

from enum import Enum
from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from services.alerts.domain.alert import AlertState, Severity
from services.alerts.domain.channel import ChannelKind
from services.alerts.domain.notification import NotificationState
from services.kit.outbox import outbox_tables

metadata = sa.MetaData()
outbox_tables(metadata)

_TIME: Final = sa.DateTime(timezone=True)


def _one_of(column: str, values: type[Enum]) -> sa.CheckConstraint:
    listed = ", ".join(f"'{value.value}'" for value in values)
    return sa.CheckConstraint(f"{column} IN ({listed})", name=f"{column}_known")


alerts = sa.Table(
    "alerts",
    metadata,
    sa.Column("customer_id", sa.Text, primary_key=True),
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("type", sa.Text, nullable=False),
    sa.Column("severity", sa.Text, _one_of("severity", Severity), nullable=False),
    sa.Column("state", sa.Text, _one_of("state", AlertState), nullable=False),
    sa.Column("title", sa.Text, nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    sa.Column("data", JSONB, nullable=False),
    sa.Column("action_required", sa.Boolean, nullable=False),
    sa.Column("fingerprint", sa.Text, nullable=False),
    sa.Column("labels", JSONB, nullable=False),
    sa.Column("starts_at", _TIME, nullable=False),
    sa.Column("ends_at", _TIME),
    sa.Column("signal_count", sa.BigInteger, nullable=False),
    sa.Column("service", sa.Text, nullable=False),
    sa.Column("trace_id", sa.Text, nullable=False),
    sa.Index("alerts_by_id", "id", unique=True),
    sa.Index("alerts_by_type", "type", "id"),
    sa.Index("alerts_by_state", "state", "id"),
)

# One open alert a fingerprint: what signals join is decided here, whoever races.
IS_OPEN: Final = sa.text("state <> 'RESOLVED'")
sa.Index("alerts_open_fingerprint", alerts.c.fingerprint, unique=True, postgresql_where=IS_OPEN)

channels = sa.Table(
    "channels",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("kind", sa.Text, _one_of("kind", ChannelKind), nullable=False),
    sa.Column("display_name", sa.Text, nullable=False),
    sa.Column("url", sa.Text, nullable=False),
    # Readable, since it signs; only deliveries select it.
    sa.Column("secret", sa.Text, nullable=False),
    sa.Column("create_time", _TIME, nullable=False),
    sa.UniqueConstraint("kind", "url", name="channels_kind_url"),
)

notifications = sa.Table(
    "notifications",
    metadata,
    sa.Column("customer_id", sa.Text, primary_key=True),
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("alert_id", sa.Text, nullable=False),
    sa.Column("channel_id", sa.Text, sa.ForeignKey("channels.id"), nullable=False),
    sa.Column("state", sa.Text, _one_of("state", NotificationState), nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("last_result", sa.Text, nullable=False),
    sa.Column("create_time", _TIME, nullable=False),
    sa.Column("deliver_time", _TIME),
    sa.ForeignKeyConstraint(["customer_id", "alert_id"], ["alerts.customer_id", "alerts.id"]),
    sa.Index("notifications_by_id", "id", unique=True),
    sa.Index("notifications_by_alert", "alert_id", "id"),
    sa.Index("notifications_by_channel", "channel_id", "id"),
)
