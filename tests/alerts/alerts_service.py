"""The alerts service as its callers see it, and the signals that tests raise."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import pytest

from meterscope.alerts.v1 import alert_service_pb2 as alerts_pb
from meterscope.alerts.v1 import alert_service_pb2_grpc as alerts_grpc
from meterscope.alerts.v1 import channel_service_pb2 as channels_pb
from meterscope.alerts.v1 import channel_service_pb2_grpc as channels_grpc
from meterscope.alerts.v1 import notification_service_pb2 as notifications_pb
from meterscope.alerts.v1 import notification_service_pb2_grpc as notifications_grpc
from tests.eventually import eventually

# After so many attempts the service under test gives a notification up.
TRIES = 4

_numbers = itertools.count(1)


class AlertsService:
    """Stubs on one channel."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.alerts = alerts_grpc.AlertServiceStub(channel)
        self.channels = channels_grpc.ChannelServiceStub(channel)
        self.notifications = notifications_grpc.NotificationServiceStub(channel)

    def raise_signal(self, **fields: Any) -> alerts_pb.Alert:
        return self.alerts.RaiseSignal(signal(**fields))

    def add_webhook(self, url: str, secret: str = "") -> channels_pb.Channel:
        channel = channels_pb.Channel(
            kind=channels_pb.CHANNEL_KIND_WEBHOOK, display_name="Hook", url=url, secret=secret
        )
        return self.channels.CreateChannel(channels_pb.CreateChannelRequest(channel=channel))

    def notifications_of(self, alert: alerts_pb.Alert, channel_id: str = "") -> Sequence[notifications_pb.Notification]:
        request = notifications_pb.ListNotificationsRequest(alert_id=alert.id, channel_id=channel_id)
        return self.notifications.ListNotifications(request).notifications

    def ended(self, alert: alerts_pb.Alert, channel_id: str) -> notifications_pb.Notification:
        """Wait until the alert's notification through this channel is delivered or dead."""

        def find() -> notifications_pb.Notification | None:
            notification = self.notifications_of(alert, channel_id)[0]
            return None if notification.state == notifications_pb.NOTIFICATION_STATE_PENDING else notification

        return eventually(find)


def signal(**fields: Any) -> alerts_pb.RaiseSignalRequest:
    """Build a signal with a fingerprint and a request id of its own."""
    number = next(_numbers)
    request = alerts_pb.RaiseSignalRequest(
        type="usage_threshold",
        severity=alerts_pb.SEVERITY_WARNING,
        title="requests at 100 %",
        message="cus_1 has used 100 of 100 requests",
        customer_id="cus_1",
        fingerprint=f"usage_threshold:cus_1:requests:{number}",
        service="usage",
        request_id=f"obx_{number}",
    )
    for name, value in fields.items():
        match value:
            case dict() if name == "data":
                request.data.update(value)
            case dict():
                request.labels.update(value)
            case _:
                setattr(request, name, value)
    return request


@dataclass(frozen=True)
class Refusal:
    """How a call ended that was refused."""

    code: grpc.StatusCode
    details: str


def refusal(call: Callable[[], object]) -> Refusal:
    """Make a call that is refused."""
    with pytest.raises(grpc.RpcError) as refused:
        call()
    return Refusal(refused.value.code(), refused.value.details() or "")
