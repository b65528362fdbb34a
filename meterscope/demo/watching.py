"""Who was told of what: alerts, their notifications, and the webhooks that arrived."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from meterscope.alerts.v1 import alert_service_pb2 as alert_pb
from meterscope.alerts.v1 import notification_service_pb2 as notification_pb
from meterscope.demo import waiting
from meterscope.demo.backend import Backend, pages
from meterscope.demo.errors import DemoFailed
from meterscope.demo.receiver import Receiver

THRESHOLD: Final = "usage_threshold"
DECLINED: Final = "payment_failed"
PAID: Final = "invoice_paid"
CHANNEL_KINDS: Final = ("log", "webhook")
_SECONDS: Final = 30.0


@dataclass(frozen=True)
class Watch:
    """What was raised and who was told.

    Attributes:
        alerts: the alerts, newest first.
        notifications: all notifications by alert.
    """

    alerts: Sequence[alert_pb.Alert]
    notifications: Mapping[str, Sequence[notification_pb.Notification]]

    def of(self, kind: str) -> list[alert_pb.Alert]:
        """Return the alerts of one type."""
        return [alert for alert in self.alerts if alert.type == kind]

    def delivered(self, alert: alert_pb.Alert, channel_kind: str) -> list[notification_pb.Notification]:
        """Return the notifications of an alert that a channel of this kind took."""
        return [
            sent
            for sent in self.notifications[alert.id]
            if sent.channel_kind == channel_kind and sent.state == notification_pb.NOTIFICATION_STATE_DELIVERED
        ]


def all_alerts(backend: Backend) -> list[alert_pb.Alert]:
    """Return all alerts, newest first."""
    return list(pages(backend.alerts.ListAlerts, alert_pb.ListAlertsRequest(), "alerts"))


def wait_until_told(backend: Backend, receiver: Receiver, expected: Mapping[str, int]) -> Watch:
    """Wait until each expected alert is there and was delivered, once, to the log and to the demo's webhook.

    Args:
        backend: the services.
        receiver: where the webhooks arrive.
        expected: how many alerts of each type there must be.

    Raises:
        DemoFailed: it takes longer than 30 s, or something was raised or delivered twice.
    """

    def told() -> Watch | None:
        found = all_alerts(backend)
        sent: dict[str, list[notification_pb.Notification]] = {alert.id: [] for alert in found}
        request = notification_pb.ListNotificationsRequest()
        for notification in pages(backend.notifications.ListNotifications, request, "notifications"):
            sent.setdefault(notification.alert_id, []).append(notification)
        counts = Counter(alert.type for alert in found)
        if any(counts[kind] < count for kind, count in expected.items()):
            return None
        watch = Watch(found, sent)
        relevant = [alert for alert in found if alert.type in expected]
        return watch if all(_is_told(watch, alert) for alert in relevant) else None

    wanted = ", ".join(f"{count} {kind}" for kind, count in expected.items())
    watch = waiting.until(f"{wanted} raised and delivered", told, seconds=_SECONDS)
    _check_once(watch, receiver, expected)
    return watch


def _is_told(watch: Watch, alert: alert_pb.Alert) -> bool:
    return all(watch.delivered(alert, kind) for kind in CHANNEL_KINDS)


def _check_once(watch: Watch, receiver: Receiver, expected: Mapping[str, int]) -> None:
    arrived = {webhook.id for webhook in receiver.received()}
    for kind, count in expected.items():
        if len(watch.of(kind)) != count:
            raise DemoFailed(f"{len(watch.of(kind))} alerts of type {kind} instead of {count}")
        for alert in watch.of(kind):
            for channel in CHANNEL_KINDS:
                if len(watch.delivered(alert, channel)) != 1:
                    raise DemoFailed(f"alert {alert.id} went to {channel} {len(watch.delivered(alert, channel))} times")
            if watch.delivered(alert, "webhook")[0].id not in arrived:
                raise DemoFailed(f"alert {alert.id} never came to the demo's webhook")
    if receiver.refused:
        raise DemoFailed(f"{receiver.refused} webhooks arrived with a wrong signature")
