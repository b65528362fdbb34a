"""All queries of the alerts service. Every function works inside the caller's transaction."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from services.alerts.domain.alert import Alert, AlertState, Severity, Signal
from services.alerts.domain.channel import LOG_CHANNEL_ID, Channel, ChannelKind
from services.alerts.domain.notification import Notification, NotificationState
from services.alerts.tables import IS_OPEN, alerts, channels, notifications

# Everything but the secret.
_CHANNEL_COLUMNS = [column for column in channels.c if column is not channels.c.secret]


@dataclass(frozen=True)
class Delivery:
    """What an attempt needs: the notification, its alert, its channel and the channel's secret."""

    notification: Notification
    alert: Alert
    channel: Channel
    secret: str


def insert_or_join_alert(conn: sa.Connection, alert: Alert) -> Alert:
    """Open an alert, or count its signal on the open one with its fingerprint. The answer's id tells which."""
    signal = alert.signal
    row = {
        "customer_id": signal.customer_id,
        "id": alert.id,
        "type": signal.type,
        "severity": signal.severity.value,
        "state": alert.state.value,
        "title": signal.title,
        "message": signal.message,
        "data": signal.data,
        "action_required": signal.action_required,
        "fingerprint": signal.fingerprint,
        "labels": signal.labels,
        "starts_at": signal.starts_at,
        "ends_at": alert.ends_at,
        "signal_count": alert.signal_count,
        "service": signal.service,
        "trace_id": signal.trace_id,
    }
    statement = insert(alerts).values(row)
    statement = statement.on_conflict_do_update(
        index_elements=[alerts.c.fingerprint],
        index_where=IS_OPEN,
        set_={"signal_count": alerts.c.signal_count + statement.excluded.signal_count},
    )
    return _alert(conn.execute(statement.returning(*alerts.c)).one())


def find_alert(conn: sa.Connection, alert_id: str) -> Alert | None:
    """Return the alert of this id."""
    row = conn.execute(sa.select(*alerts.c).where(alerts.c.id == alert_id)).one_or_none()
    return None if row is None else _alert(row)


def list_alerts(conn: sa.Connection, equal: Mapping[str, str], *, before: str | None, limit: int) -> list[Alert]:
    """Return alerts newest first, those older than the alert `before`.

    Args:
        conn: the transaction.
        equal: values by column that an alert must have.
        before: the id of the last alert of the page before.
        limit: how many at most.
    """
    query = sa.select(*alerts.c).order_by(alerts.c.id.desc()).limit(limit)
    for name, value in equal.items():
        query = query.where(alerts.c[name] == value)
    if before is not None:
        query = query.where(alerts.c.id < before)
    return [_alert(row) for row in conn.execute(query)]


def count_open_alerts(conn: sa.Connection) -> dict[tuple[str, str], int]:
    """Return how many alerts are open, by severity and type."""
    query = sa.select(alerts.c.severity, alerts.c.type, sa.func.count()).where(IS_OPEN).group_by("severity", "type")
    return {(row[0], row[1]): row[2] for row in conn.execute(query)}


def insert_channel(conn: sa.Connection, channel: Channel, secret: str) -> bool:
    """Add a channel. False if one of its kind and URL is there."""
    statement = (
        insert(channels)
        .values(
            id=channel.id,
            kind=channel.kind.value,
            display_name=channel.display_name,
            url=channel.url,
            secret=secret,
            create_time=channel.create_time,
        )
        .on_conflict_do_nothing(index_elements=[channels.c.kind, channels.c.url])
        .returning(channels.c.id)
    )
    return conn.execute(statement).one_or_none() is not None


def find_channel(conn: sa.Connection, channel_id: str) -> Channel | None:
    """Return the channel of this id."""
    row = conn.execute(sa.select(*_CHANNEL_COLUMNS).where(channels.c.id == channel_id)).one_or_none()
    return None if row is None else _channel(row)


def list_channels(conn: sa.Connection, *, after: str | None = None, limit: int | None = None) -> list[Channel]:
    """Return channels in the order of their creation, those behind the channel `after`.

    Ids sort by the time they were made; the log's is no such id, and it is the first.
    """
    own = channels.c.id != LOG_CHANNEL_ID
    query = sa.select(*_CHANNEL_COLUMNS).order_by(own, channels.c.id).limit(limit)
    if after is not None:
        query = query.where(own)
    if after not in {None, LOG_CHANNEL_ID}:
        query = query.where(channels.c.id > after)
    return [_channel(row) for row in conn.execute(query)]


def insert_notification(conn: sa.Connection, notification: Notification, customer_id: str) -> None:
    """Add a notification of an alert of this customer."""
    conn.execute(
        sa.insert(notifications).values(
            customer_id=customer_id,
            id=notification.id,
            alert_id=notification.alert_id,
            channel_id=notification.channel_id,
            state=notification.state.value,
            attempts=notification.attempts,
            last_result=notification.last_result,
            create_time=notification.create_time,
            deliver_time=notification.deliver_time,
        )
    )


def begin_attempt(conn: sa.Connection, notification_id: str) -> Delivery | None:
    """Count an attempt and return what it needs. None if the notification is no longer pending."""
    counted = conn.execute(
        sa.update(notifications)
        .where(notifications.c.id == notification_id, notifications.c.state == NotificationState.PENDING.value)
        .values(attempts=notifications.c.attempts + 1)
        .returning(notifications.c.alert_id, notifications.c.channel_id)
    ).one_or_none()
    if counted is None:
        return None
    notification = _notification(conn.execute(_notifications().where(notifications.c.id == notification_id)).one())
    alert = conn.execute(sa.select(*alerts.c).where(alerts.c.id == counted.alert_id)).one()
    channel = conn.execute(sa.select(*channels.c).where(channels.c.id == counted.channel_id)).one()
    return Delivery(notification, _alert(alert), _channel(channel), channel.secret)


def record_attempt(conn: sa.Connection, notification: Notification) -> None:
    """Write what an attempt led to."""
    conn.execute(
        sa.update(notifications)
        .where(notifications.c.id == notification.id)
        .values(
            state=notification.state.value,
            last_result=notification.last_result,
            deliver_time=notification.deliver_time,
        )
    )


def list_notifications(
    conn: sa.Connection, equal: Mapping[str, str], *, before: str | None, limit: int
) -> list[Notification]:
    """Return notifications newest first, as `list_alerts` does alerts."""
    query = _notifications().order_by(notifications.c.id.desc()).limit(limit)
    for name, value in equal.items():
        query = query.where(notifications.c[name] == value)
    if before is not None:
        query = query.where(notifications.c.id < before)
    return [_notification(row) for row in conn.execute(query)]


def _notifications() -> sa.Select[Any]:
    return sa.select(*notifications.c, channels.c.kind).join_from(notifications, channels)


def _alert(row: sa.Row[Any]) -> Alert:
    signal = Signal(
        type=row.type,
        severity=Severity(row.severity),
        title=row.title,
        message=row.message,
        data=row.data,
        action_required=row.action_required,
        customer_id=row.customer_id,
        fingerprint=row.fingerprint,
        labels=row.labels,
        starts_at=row.starts_at,
        service=row.service,
        trace_id=row.trace_id,
    )
    return Alert(row.id, signal, AlertState(row.state), row.signal_count, row.ends_at)


def _channel(row: sa.Row[Any]) -> Channel:
    return Channel(row.id, ChannelKind(row.kind), row.display_name, row.url, row.create_time)


def _notification(row: sa.Row[Any]) -> Notification:
    return Notification(
        id=row.id,
        alert_id=row.alert_id,
        channel_id=row.channel_id,
        channel_kind=ChannelKind(row.kind),
        state=NotificationState(row.state),
        attempts=row.attempts,
        last_result=row.last_result,
        create_time=row.create_time,
        deliver_time=row.deliver_time,
    )
