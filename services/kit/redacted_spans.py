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

# What spans say is mostly said again and again: names, methods, the text of a statement.
_SHORT: Final = 512
_LONG: Final = 8_192
# No card has so few digits, and most numbers have no more.
_HARMLESS_BELOW: Final = 10**12


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
    if (
        _is_public("", span.name)
        and _are_public(span.attributes)
        and not span.status.description
        and all(_are_public(event.attributes) for event in span.events)
    ):
        return span
    return ReadableSpan(
        name=redact(span.name),
        context=span.get_span_context(),
        parent=span.parent,
        resource=span.resource,
        attributes=_attributes(span.attributes),
        events=[Event(event.name, _attributes(event.attributes), event.timestamp) for event in span.events],
        links=span.links,
        kind=span.kind,
        status=Status(span.status.status_code, span.status.description and redact(span.status.description)),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _are_public(attributes: Mapping[str, Any] | None) -> bool:
    return not attributes or all(_is_public(name, value) for name, value in attributes.items())


def _is_public(name: str, value: Any) -> bool:
    """Say whether nothing of an attribute has to be replaced."""
    if isinstance(value, str):
        if len(value) <= _SHORT:
            return _stays(name, value)
        return _long_stays(name, value) if len(value) <= _LONG else _text_stays(name, value)
    if isinstance(value, bool | float) or (isinstance(value, int) and -_HARMLESS_BELOW < value < _HARMLESS_BELOW):
        return _stays(name, "")
    return bool(_value(name, value) == value)


def _attributes(attributes: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: _value(name, value) for name, value in (attributes or {}).items()}


def _value(name: str, value: Any) -> Any:
    # Exporters and the comparison above want sequences as the SDK keeps them.
    redacted = redact_value(value, name)
    return tuple(redacted) if isinstance(redacted, list) else redacted


def _text_stays(name: str, text: str) -> bool:
    return bool(redact_value(text, name) == text)


_stays = lru_cache(maxsize=8192)(_text_stays)
# Statements, above all.
_long_stays = lru_cache(maxsize=512)(_text_stays)
