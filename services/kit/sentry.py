"""Errors to Sentry, where a DSN is set; nothing otherwise. OpenTelemetry keeps the traces: only their ids go along."""

from typing import Any, Final

from opentelemetry import trace

from services.kit.config import KitSettings
from services.kit.redaction import is_secret_name, redact

_PRODUCTION_RATE: Final = 0.1


def setup(service: str, settings: KitSettings) -> None:
    """Report uncaught errors and logged exceptions of this process."""
    if not settings.sentry_dsn:
        return
    # Imported only where it is used: it costs every start a tenth of a second.
    import sentry_sdk

    rate = _PRODUCTION_RATE if settings.environment == "production" else 1.0
    sentry_sdk.init(
        dsn=settings.sentry_dsn,
        release=settings.version,
        environment=settings.environment,
        server_name=service,
        traces_sample_rate=rate,
        profiles_sample_rate=rate,
        send_default_pii=False,
        before_send=_before_send,
        # Its own propagation would overwrite the W3C headers that join our traces.
        propagate_traces=False,
        auto_enabling_integrations=False,
    )
    sentry_sdk.set_tag("service", service)


def capture(error: BaseException) -> None:
    """Report an error that was dealt with; nothing happens without a DSN."""
    import sentry_sdk

    sentry_sdk.capture_exception(error)


def _before_send(event: Any, _hint: dict[str, Any]) -> Any:
    span = trace.get_current_span().get_span_context()
    if span.is_valid:
        event.setdefault("tags", {})["otel_trace_id"] = trace.format_trace_id(span.trace_id)
    return _scrub(event)


def _scrub(value: Any, name: str = "") -> Any:
    if name and is_secret_name(name):
        return "[redacted]"
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {key: _scrub(part, str(key)) for key, part in value.items()}
    if isinstance(value, list):
        return [_scrub(part, name) for part in value]
    return value
