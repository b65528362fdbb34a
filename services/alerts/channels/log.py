"""The log channel: one structured line for each notification. It is always there."""

import logging
from typing import Final

from services.alerts.channels.base import Message
from services.alerts.domain.alert import Severity
from services.alerts.domain.notification import Outcome, Verdict

_LEVELS: Final = {
    Severity.INFO: logging.INFO,
    Severity.WARNING: logging.WARNING,
    Severity.ERROR: logging.ERROR,
    Severity.CRITICAL: logging.CRITICAL,
}

_log = logging.getLogger(__name__)


class LogChannel:
    """Writes to the process's own log, at the alert's severity."""

    def send(self, message: Message) -> Outcome:
        """Write the line."""
        signal = message.alert.signal
        fields = {
            "alert_id": message.alert.id,
            "alert_type": signal.type,
            "severity": signal.severity.value,
            "notification_id": message.notification.id,
            "fingerprint": signal.fingerprint,
            "detail": signal.message,
            "alert_data": dict(signal.data),
            "labels": dict(signal.labels),
            "action_required": signal.action_required,
            "raised_by": signal.service,
            "starts_at": signal.starts_at.isoformat(),
        }
        if signal.customer_id:
            fields["customer_id"] = signal.customer_id
        _log.log(_LEVELS[signal.severity], "alert: %s", signal.title, extra=fields)
        return Outcome(Verdict.TAKEN, "logged")
