"""The signal that a threshold was reached: one a customer, meter, period and threshold, in the trace of its cause."""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

import sqlalchemy as sa
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, TraceFlags

from services.kit import telemetry
from services.kit.exemplars import KEEP
from services.kit.money import plain
from services.kit.outbox import Outbox
from services.usage.store import thresholds
from services.usage.store.rollup import Turn
from services.usage.store.thresholds import Cause, Crossing

RAISE_SIGNAL: Final = "raise_signal"
# The transaction must not stand idle for long while they are written down.
_AT_ONCE: Final = 5_000
_FULL: Final = 100
_PERCENT: Final = Decimal(100)
# Its span is the job's producer: the row runs in its context.
_SENT: Final[Mapping[str, str | bool]] = {
    "messaging.system": "dramatiq",
    "messaging.operation.type": "send",
    "messaging.destination.name": "usage",
    KEEP: True,
}


class Signals:
    """Puts a signal into the outbox for each threshold that a turn of the rollup reached."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._tracer = trace.get_tracer("services.usage")

    def put(self, conn: sa.Connection, turn: Turn) -> list[Crossing]:
        """Store the thresholds that were reached, and their signals, in the turn's transaction.

        However many they are: when a default limit is lowered, customers without a plan cross it all at once.
        """
        crossed = thresholds.cross(conn)
        for place in range(0, len(crossed), _AT_ONCE):
            some = crossed[place : place + _AT_ONCE]
            causes = thresholds.causes(conn, turn, some)
            self._outbox.put_all(
                conn,
                job=RAISE_SIGNAL,
                entries=[("", {"request": signal(crossing)}) for crossing in some],
                contexts=[self._context(*each) for each in zip(some, causes, strict=True)],
            )
        return crossed

    def _context(self, crossing: Crossing, cause: Cause) -> dict[str, str]:
        """Return the trace context of a span that continues the trace of what crossed the threshold."""
        name = f"threshold {crossing.meter_id} {crossing.threshold}%"
        with self._tracer.start_as_current_span(name, _context(cause), SpanKind.PRODUCER, _SENT):
            return telemetry.inject()


def signal(crossing: Crossing) -> dict[str, Any]:
    """Return the RaiseSignalRequest as JSON."""
    start = _shown(crossing.period_start)
    used, amount = plain(crossing.used), plain(crossing.amount)
    over = crossing.threshold >= _FULL
    percent = f"{_PERCENT * crossing.used / crossing.amount:.1f}" if crossing.amount else "100.0"
    return {
        "type": "usage_threshold",
        "severity": "SEVERITY_CRITICAL" if over and crossing.kind != "SOFT" else "SEVERITY_WARNING",
        "title": f"{crossing.meter_id} has reached {crossing.threshold} % of its limit",
        "message": f"Customer {crossing.customer_id} has used {used} of {amount} {crossing.meter_id} ({percent} %) "
        f"in the period that began {start}.",
        "data": {
            "meter": crossing.meter_id,
            "threshold": crossing.threshold,
            "used": used,
            "limit": amount,
            "kind": crossing.kind,
            "period_start": start,
        },
        "action_required": over,
        "customer_id": crossing.customer_id,
        "fingerprint": f"usage_threshold:{crossing.customer_id}:{crossing.meter_id}:{start}:{crossing.threshold}",
        "labels": {"meter": crossing.meter_id, "threshold": str(crossing.threshold)},
        "service": "usage",
    }


def _context(cause: Cause) -> Context:
    if cause.trace_id:
        # A parent needs a span id: that of the ingest, which is in the event's trace unless the event named another.
        remote = SpanContext(
            cause.trace_id, cause.span_id or 1, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED)
        )
        return trace.set_span_in_context(NonRecordingSpan(remote), Context())
    return telemetry.extract(cause.context) if cause.context else Context()


def _shown(instant: datetime) -> str:
    return instant.isoformat().replace("+00:00", "Z")
