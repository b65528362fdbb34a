"""Takes secrets out of spans on their way to an exporter: on the exporting thread, so that no call waits for it.

For exporters other than OTLP's, whose encoding does so itself (span_encoding.py).
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import Status

from services.kit.redaction import redact, redact_value

# What spans say is mostly said again and again; longer texts are seldom the same.
_REMEMBERED_LENGTH: Final = 512


class RedactedSpans(SpanExporter):
    """Passes spans on to an exporter without the secrets in their names, attributes, events and statuses."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Redact and pass on."""
        return self._exporter.export([_redacted(span) for span in spans])

    def shutdown(self) -> None:
        """Shut the exporter down."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Have the exporter send what it holds."""
        return self._exporter.force_flush(timeout_millis)


def _redacted(span: ReadableSpan) -> ReadableSpan:
    """Return the span itself where it holds no secret, which is nearly always."""
    name = _text(span.name)
    attributes = _attributes(span.attributes)
    events = [Event(event.name, _attributes(event.attributes), event.timestamp) for event in span.events]
    description = span.status.description and redact(span.status.description)
    is_same = (
        name == span.name
        and attributes == dict(span.attributes or {})
        and description == span.status.description
        and all(new.attributes == dict(old.attributes or {}) for new, old in zip(events, span.events, strict=True))
    )
    if is_same:
        return span
    return ReadableSpan(
        name=name,
        context=span.get_span_context(),
        parent=span.parent,
        resource=span.resource,
        attributes=attributes,
        events=events,
        links=span.links,
        kind=span.kind,
        status=Status(span.status.status_code, description),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _attributes(attributes: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: _value(name, value) for name, value in (attributes or {}).items()}


def _value(name: str, value: Any) -> Any:
    if isinstance(value, str) and len(value) <= _REMEMBERED_LENGTH:
        return _remembered(name, value)
    return _plain(redact_value(value, name))


def _plain(value: Any) -> Any:
    """Return a value as exporters and the comparison above want it: sequences as the SDK keeps them, no types but JSON's."""
    if isinstance(value, list):
        return tuple(map(_plain, value))
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    return value if value is None or isinstance(value, (str, int, float)) else str(value)


def _text(text: str) -> str:
    shown: str = _remembered("", text)
    return shown


_remembered = lru_cache(maxsize=8192)(lambda name, text: redact_value(text, name))
