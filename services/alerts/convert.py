"""Between the contract's messages and the domain's values."""

from datetime import UTC, datetime
from typing import Final

from google.protobuf import json_format
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp

from meterscope.alerts.v1 import alert_service_pb2, channel_service_pb2, notification_service_pb2
from services.alerts.domain.alert import Alert, AlertState, LinkBases, Severity, Signal
from services.alerts.domain.channel import Channel, ChannelKind
from services.alerts.domain.notification import Notification
from services.kit.errors import InvalidArgument

_SEVERITY: Final = "SEVERITY_"
_ALERT_STATE: Final = "ALERT_STATE_"
_CHANNEL_KIND: Final = "CHANNEL_KIND_"
_NOTIFICATION_STATE: Final = "NOTIFICATION_STATE_"


def signal_from_proto(request: alert_service_pb2.RaiseSignalRequest, *, now: datetime, trace_id: str) -> Signal:
    """Decode a signal; without a time it began `now`.

    Raises:
        InvalidArgument: no or unknown severity, data or time that cannot be read.
    """
    return Signal(
        type=request.type,
        severity=_severity(request.severity),
        title=request.title,
        message=request.message,
        data=_data(request.data),
        action_required=request.action_required,
        customer_id=request.customer_id,
        fingerprint=request.fingerprint,
        labels=dict(request.labels),
        starts_at=_time("starts_at", request.starts_at) if request.HasField("starts_at") else now,
        service=request.service,
        trace_id=trace_id,
    )


def alert_to_proto(alert: Alert, links: LinkBases) -> alert_service_pb2.Alert:
    """Encode an alert."""
    signal = alert.signal
    message = alert_service_pb2.Alert(
        id=alert.id,
        type=signal.type,
        severity=alert_service_pb2.Severity.Value(_SEVERITY + signal.severity.value),
        state=alert_service_pb2.AlertState.Value(_ALERT_STATE + alert.state.value),
        title=signal.title,
        message=signal.message,
        action_required=signal.action_required,
        customer_id=signal.customer_id,
        fingerprint=signal.fingerprint,
        labels=signal.labels,
        starts_at=_timestamp(signal.starts_at),
        ends_at=None if alert.ends_at is None else _timestamp(alert.ends_at),
        links=links.of(signal),
        signal_count=alert.signal_count,
        service=signal.service,
        trace_id=signal.trace_id,
    )
    message.data.update(signal.data)
    return message


def alert_state_from_proto(value: alert_service_pb2.AlertState.ValueType) -> AlertState | None:
    """Decode a state to filter by; None for no filter.

    Raises:
        InvalidArgument: unknown.
    """
    if value == alert_service_pb2.ALERT_STATE_UNSPECIFIED:
        return None
    if value not in alert_service_pb2.AlertState.values():
        raise InvalidArgument.at("state", f"{value} is no state; use one such as FIRING")
    return AlertState(alert_service_pb2.AlertState.Name(value).removeprefix(_ALERT_STATE))


def channel_kind_from_proto(value: channel_service_pb2.ChannelKind.ValueType) -> ChannelKind:
    """Decode a channel's kind.

    Raises:
        InvalidArgument: none, or an unknown one.
    """
    if value not in channel_service_pb2.ChannelKind.values() or not value:
        raise InvalidArgument.at("channel.kind", "is missing or unknown; use WEBHOOK or LOG", reason="REQUIRED")
    return ChannelKind[channel_service_pb2.ChannelKind.Name(value).removeprefix(_CHANNEL_KIND)]


def channel_to_proto(channel: Channel, secret: str = "") -> channel_service_pb2.Channel:
    """Encode a channel, with its secret only where that is given: in the answer that creates it."""
    return channel_service_pb2.Channel(
        id=channel.id,
        kind=channel_service_pb2.ChannelKind.Value(_CHANNEL_KIND + channel.kind.name),
        display_name=channel.display_name,
        url=channel.url,
        secret=secret,
        create_time=_timestamp(channel.create_time),
    )


def notification_to_proto(notification: Notification) -> notification_service_pb2.Notification:
    """Encode a notification."""
    return notification_service_pb2.Notification(
        id=notification.id,
        alert_id=notification.alert_id,
        channel_id=notification.channel_id,
        channel_kind=notification.channel_kind.value,
        state=notification_service_pb2.NotificationState.Value(_NOTIFICATION_STATE + notification.state.value),
        attempts=notification.attempts,
        last_result=notification.last_result,
        create_time=_timestamp(notification.create_time),
        deliver_time=None if notification.deliver_time is None else _timestamp(notification.deliver_time),
    )


def _severity(value: alert_service_pb2.Severity.ValueType) -> Severity:
    if value not in alert_service_pb2.Severity.values() or not value:
        raise InvalidArgument.at("severity", "is missing or unknown; use one such as WARNING", reason="REQUIRED")
    return Severity(alert_service_pb2.Severity.Name(value).removeprefix(_SEVERITY))


def _data(data: Struct) -> dict[str, object]:
    try:
        return dict(json_format.MessageToDict(data))
    except (json_format.SerializeToJsonError, ValueError) as error:
        raise InvalidArgument.at("data", f"is no JSON object: {error}") from None


def _time(field: str, value: Timestamp) -> datetime:
    try:
        return value.ToDatetime(UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidArgument.at(field, f"is no time that can be kept: {error}") from None


def _timestamp(moment: datetime) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(moment)
    return message
