"""An alert: something that people should know, made of one signal or of many with the same fingerprint."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any, Final

from services.alerts.domain.text import check_labels, check_text
from services.kit.errors import InvalidArgument

MAX_TYPE: Final = 128
MAX_TITLE: Final = 256
MAX_FINGERPRINT: Final = 512
MAX_NAME: Final = 256
MAX_MESSAGE: Final = 16 * 1024
MAX_DATA: Final = 64 * 1024
MAX_LABELS: Final = 64


class Severity(Enum):
    """How bad it is."""

    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"
    CRITICAL = "CRITICAL"


class AlertState(Enum):
    """Where an alert stands. All but RESOLVED are open: signals with its fingerprint join it."""

    PENDING = "PENDING"
    FIRING = "FIRING"
    ACKNOWLEDGED = "ACKNOWLEDGED"
    RESOLVED = "RESOLVED"


@dataclass(frozen=True)
class Signal:
    """What a service says about what happened. Signals with the same fingerprint are the same alert."""

    type: str
    severity: Severity
    title: str
    message: str
    data: Mapping[str, Any]
    action_required: bool
    customer_id: str
    fingerprint: str
    labels: Mapping[str, str]
    starts_at: datetime
    service: str
    trace_id: str

    def check(self) -> None:
        """Check every field's size and content.

        Raises:
            InvalidArgument: names the first field that is wrong.
        """
        check_text("type", self.type, least=1, most=MAX_TYPE)
        check_text("title", self.title, least=1, most=MAX_TITLE)
        check_text("message", self.message, most=MAX_MESSAGE)
        check_text("customer_id", self.customer_id, most=MAX_NAME)
        check_text("fingerprint", self.fingerprint, least=1, most=MAX_FINGERPRINT)
        check_text("service", self.service, least=1, most=MAX_NAME)
        check_labels("labels", self.labels, most=MAX_LABELS)
        _check_data("data", self.data)
        size = len(json.dumps(self.data, ensure_ascii=False).encode())
        if size > MAX_DATA:
            raise InvalidArgument.at("data", f"has {size:,} bytes as JSON; at most {MAX_DATA:,} are kept")


@dataclass(frozen=True)
class Alert:
    """What the signals made.

    Attributes:
        id: `alr_…`.
        signal: the first one; later ones only count.
        state: where it stands.
        signal_count: how many signals it stands for.
        ends_at: when it was over; None while it is open.
    """

    id: str
    signal: Signal
    state: AlertState
    signal_count: int
    ends_at: datetime | None


@dataclass(frozen=True)
class LinkBases:
    """Where people look: base URLs of Jaeger and Grafana, None where there is none."""

    jaeger: str | None = None
    grafana: str | None = None

    def of(self, signal: Signal) -> dict[str, str]:
        """Return a signal's links by name (`trace`, `dashboard`)."""
        links = {}
        if self.jaeger and signal.trace_id:
            links["trace"] = f"{self.jaeger.rstrip('/')}/trace/{signal.trace_id}"
        if self.grafana:
            links["dashboard"] = self.grafana
        return links


def _check_data(path: str, value: Any) -> None:
    """Refuse what JSON in PostgreSQL cannot hold: NUL characters."""
    if isinstance(value, str):
        check_text(path, value, most=MAX_DATA)
    elif isinstance(value, Mapping):
        for name, part in value.items():
            check_text(path, name, most=MAX_DATA)
            _check_data(f"{path}.{name}", part)
    elif isinstance(value, list):
        for index, part in enumerate(value):
            _check_data(f"{path}[{index}]", part)
