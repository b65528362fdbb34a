"""The alerts service's instruments, declared once."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Final

from opentelemetry.metrics import Meter, Observation

from services.alerts.domain.alert import Severity
from services.alerts.domain.channel import ChannelKind
from services.alerts.domain.notification import Notification, NotificationState
from services.kit.instruments import Counter, Gauge, Histogram, Label
from services.kit.leases import Lease

_STATUS: Final = {
    NotificationState.PENDING: "failed",
    NotificationState.DELIVERED: "delivered",
    NotificationState.DEAD: "dead",
}
_LABELS: Final = (
    Label("channel", tuple(kind.value for kind in ChannelKind)),
    Label("status", tuple(_STATUS.values())),
)

NOTIFICATIONS: Final = Counter(
    "billing.notifications", "Attempts to notify, by channel and what came of them", labels=_LABELS
)
DELIVERY: Final = Histogram(
    "billing.notification.delivery",
    "Time from an alert to the end of its notification",
    unit="s",
    labels=_LABELS,
    boundaries=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60, 300, 3600),
    # The objective of "time to notify".
    alerts=(1,),
)
FIRING: Final = Gauge(
    "billing.alerts.firing",
    "Open alerts by severity and type",
    labels=(Label("severity", tuple(severity.value for severity in Severity)), Label("type")),
)


class Instruments:
    """What deliveries count."""

    def __init__(self, meter: Meter) -> None:
        self._notifications = NOTIFICATIONS.build(meter)
        self._delivery = DELIVERY.build(meter)

    def count(self, notification: Notification, now: datetime) -> None:
        """Count an attempt that left the notification as it is."""
        labels = {"channel": notification.channel_kind.value, "status": _STATUS[notification.state]}
        self._notifications.add(1, labels)
        if notification.state is not NotificationState.PENDING:
            self._delivery.record((now - notification.create_time).total_seconds(), labels)


class FiringGauge:
    """`billing_alerts_firing`: how many alerts are open, as last set; shown by the lease's holder alone."""

    def __init__(self, meter: Meter, lease: Lease) -> None:
        self._lease = lease
        self._counts: dict[tuple[str, str], int] = {}
        FIRING.observe(meter, self._observe)

    def set(self, counts: Mapping[tuple[str, str], int]) -> None:
        """Set the counts by severity and type. What was set before and is gone is 0."""
        self._counts = dict.fromkeys(self._counts, 0) | dict(counts)

    def _observe(self) -> Iterable[Observation]:
        if self._lease.held:
            for (severity, type_), count in self._counts.items():
                yield Observation(count, {"severity": severity, "type": type_})
