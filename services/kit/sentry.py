"""Errors, timings and profiles to Sentry, where a DSN is set; nothing otherwise.

What is logged as an error goes there, once, with its stack and the lines logged before it; `capture` sends what was
dealt with and is logged as less. OpenTelemetry keeps the traces and the propagation: events and transactions carry
its ids. What is sent is made in the caller's thread and leaves on another, from a queue that drops what it cannot hold.
"""

import logging
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Final
from urllib.parse import urlsplit

from opentelemetry import baggage, trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.trace import SpanKind, StatusCode

from services.kit.config import KitSettings
from services.kit.redaction import REDACTED, is_secret_name, redact

_RATES: Final = {"production": 0.1}
_OTHER_RATE: Final = 1.0
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
_BREADCRUMBS: Final = 50
# A call, a request or a message that is handled.
_UNITS: Final = {SpanKind.SERVER: "server", SpanKind.CONSUMER: "queue.process"}
# On an exception that was sent.
_SENT: Final = "_meterscope_sent"
# What a provider charges: ours, Stripe's, older ones of Stripe.
_PAYMENT_METHOD: Final = re.compile(r"\b(?:pm|card|tok|src|ba|seti)_[A-Za-z0-9][A-Za-z0-9-]{5,}")
_PAYMENT_METHOD_NAMES: Final = re.compile(r"(?i)payment_?method")


class Sentry:
    """What a process that reports to Sentry sets up."""

    def __init__(self, service: str, role: str, settings: KitSettings) -> None:
        """Start reporting. See `setup`."""
        # Imported only where it is used: it costs every start a tenth of a second.
        import sentry_sdk
        from sentry_sdk.integrations.logging import BreadcrumbHandler, EventHandler

        rate = _RATES.get(settings.environment, _OTHER_RATE)
        scrub = _Scrub(settings.jaeger_url)
        sentry_sdk.init(
            dsn=settings.sentry_dsn,
            release=settings.version,
            environment=settings.environment,
            traces_sample_rate=rate,
            profiles_sample_rate=rate,
            send_default_pii=False,
            max_breadcrumbs=_BREADCRUMBS,
            before_send=scrub.event,
            before_send_transaction=scrub.transaction,
            # Each would catch what the log catches, or write headers over those that join our traces.
            default_integrations=False,
            auto_enabling_integrations=False,
            propagate_traces=False,
        )
        sentry_sdk.get_global_scope().set_tags({"service": service, "role": role})
        self.events: logging.Handler = EventHandler(level=logging.ERROR)
        self.breadcrumbs: logging.Handler = BreadcrumbHandler(level=logging.INFO)
        self.units: SpanProcessor = Units()

    def shutdown(self) -> None:
        """Send what is queued; `Telemetry.shutdown` bounds how long that takes."""
        flush()


class Units(SpanProcessor):
    """Makes a transaction of each call, request or job, under its own trace's ids, with breadcrumbs of its own.

    It has no spans below it: those are in the trace.
    """

    def __init__(self) -> None:
        self._open: dict[int, tuple[Any, ExitStack]] = {}

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:  # noqa: ARG002 - the SDK's signature
        """Begin, for spans that are a unit."""
        if span.kind in _UNITS:
            with _silently():
                self._begin(span)

    def on_end(self, span: ReadableSpan) -> None:
        """End it."""
        context = span.get_span_context()
        if context is None or (found := self._open.pop(context.span_id, None)) is None:
            return
        with _silently():
            transaction, stack = found
            transaction.name = span.name
            transaction.set_status("internal_error" if span.status.status_code is StatusCode.ERROR else "ok")
            stack.close()

    def _begin(self, span: Span) -> None:
        import sentry_sdk

        context = span.get_span_context()
        with ExitStack() as stack:
            stack.enter_context(sentry_sdk.isolation_scope())
            ids: dict[str, Any] = {
                "trace_id": trace.format_trace_id(context.trace_id),
                "span_id": trace.format_span_id(context.span_id),
            }
            if span.parent:
                ids["parent_span_id"] = trace.format_span_id(span.parent.span_id)
            transaction = sentry_sdk.start_transaction(op=_UNITS[span.kind], name=span.name, source="route", **ids)
            stack.enter_context(transaction)
            self._open[context.span_id] = (transaction, stack.pop_all())


def setup(service: str, settings: KitSettings, *, role: str) -> Sentry | None:
    """Report the errors of this process; None where there is no DSN.

    In the environment `test` nothing is sent but to this machine.
    """
    dsn = settings.sentry_dsn
    if not dsn or (settings.environment == "test" and urlsplit(dsn).hostname not in _LOOPBACK):
        return None
    return Sentry(service, role, settings)


def capture(error: BaseException) -> None:
    """Report an error that was dealt with; nothing happens without a DSN."""
    if "sentry_sdk" in sys.modules:
        sys.modules["sentry_sdk"].capture_exception(error)


def flush() -> None:
    """Send what is queued, for 2 s at most; nothing happens without a DSN."""
    if "sentry_sdk" in sys.modules:
        sys.modules["sentry_sdk"].flush(timeout=2)


class _Scrub:
    """The last thing that sees an event."""

    def __init__(self, jaeger_url: str | None) -> None:
        self._jaeger_url = jaeger_url

    def event(self, event: Any, hint: Mapping[str, Any]) -> Any:
        """Return the event without secrets, under its trace; None for an exception that was sent already."""
        error = hint["exc_info"][1] if hint.get("exc_info") else None
        if error is not None and _was_sent(error):
            return None
        return self._place(_scrub(event))

    def transaction(self, event: Any, _hint: Mapping[str, Any]) -> Any:
        """Return the transaction without secrets."""
        return _scrub(event)

    def _place(self, event: Any) -> Any:
        tags, extra = event.setdefault("tags", {}), event.setdefault("extra", {})
        span = trace.get_current_span()
        context = span.get_span_context()
        if context.is_valid:
            trace_id = trace.format_trace_id(context.trace_id)
            tags["trace_id"] = trace_id
            ids = {"trace_id": trace_id, "span_id": trace.format_span_id(context.span_id)}
            event.setdefault("contexts", {}).setdefault("trace", {}).update(ids)
            if self._jaeger_url:
                extra["trace_url"] = f"{self._jaeger_url.rstrip('/')}/trace/{trace_id}"
        attributes: Mapping[str, Any] = getattr(span, "attributes", None) or {}
        customer = (
            extra.get("customer_id") or baggage.get_baggage("customer_id") or attributes.get("customer_id") or None
        )
        if customer:
            tags["customer_id"] = redact(str(customer))
            event["user"] = {"id": tags["customer_id"]}
        return event


def _was_sent(error: BaseException) -> bool:
    if getattr(error, _SENT, False):
        return True
    try:
        setattr(error, _SENT, True)
    except AttributeError:
        return False
    return False


def _scrub(value: Any, name: str = "") -> Any:
    if name and (is_secret_name(name) or _PAYMENT_METHOD_NAMES.search(name)):
        return REDACTED
    if isinstance(value, str):
        return _PAYMENT_METHOD.sub("[redacted payment method]", redact(value))
    if isinstance(value, dict):
        return {key: _scrub(part, str(key)) for key, part in value.items()}
    if isinstance(value, list):
        return [_scrub(part, name) for part in value]
    return value


@contextmanager
def _silently() -> Iterator[None]:
    """Let no fault of Sentry's be one of the call's."""
    try:
        yield
    except Exception:
        logging.getLogger("sentry_sdk.errors").warning("a transaction was lost", exc_info=True)
