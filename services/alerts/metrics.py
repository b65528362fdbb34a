"""The alerts service's instruments, declared once."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Final

from opentelemetry.metrics import CallbackOptions, Meter, Observation

from services.alerts.domain.channel import ChannelKind
from services.alerts.domain.notification import Notification, NotificationState
from services.kit.leases import Lease

# 1 s is the alert threshold and the objective of "time to notify".
DELIVERY_BOUNDARIES: Final = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60, 300, 3600)
_STATUS: Final = {
    NotificationState.PENDING: "failed",
    NotificationState.DELIVERED: "delivered",
    NotificationState.DEAD: "dead",
}


class Instruments:
    """What deliveries count."""

    def __init__(self, meter: Meter) -> None:
        self._notifications = meter.create_counter(
            "billing.notifications", description="Attempts to notify, by channel and what came of them"
        )
        self._delivery = meter.create_histogram(
            "billing.notification.delivery",
            unit="s",
            description="Time from an alert to the end of its notification",
            explicit_bucket_boundaries_advisory=DELIVERY_BOUNDARIES,
        )
        # A series that begins with its first failure would hide that failure from rate().
        for kind in ChannelKind:
            for status in _STATUS.values():
                self._notifications.add(0, {"channel": kind.value, "status": status})

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
        meter.create_observable_gauge(
            "billing.alerts.firing", callbacks=[self._observe], description="Open alerts by severity and type"
        )

    def set(self, counts: Mapping[tuple[str, str], int]) -> None:
        """Set the counts by severity and type. What was set before and is gone is 0."""
        self._counts = dict.fromkeys(self._counts, 0) | dict(counts)

    def _observe(self, _options: CallbackOptions) -> Iterable[Observation]:
        if self._lease.held:
            for (severity, type_), count in self._counts.items():
                yield Observation(count, {"severity": severity, "type": type_})
