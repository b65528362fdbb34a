"""Tracers whose spans cost a call less: what the SDK's do, without what this project never asks of them.

The SDK builds a span for callers it cannot know. It checks the type of each attribute, locks each change, keeps bounded
lists of events and links that hardly any span has, asks its sampler three times over for the parent, and copies the
whole span at its end. Of a single event's time at a server that was an eighth. Where a span needs what is left out here
(another sampler, a parent that is not sampled, links), the SDK makes it.
"""

import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import Event, Span, Tracer, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, DEFAULT_ON
from opentelemetry.sdk.util import BoundedList
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.trace.span import DEFAULT_TRACE_STATE
from opentelemetry.util.types import Attributes, AttributeValue

_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)
_SAMPLED_AND_RANDOM: Final = TraceFlags(TraceFlags.SAMPLED | TraceFlags.RANDOM_TRACE_ID)
_UNSET: Final = Status(StatusCode.UNSET)

_log = logging.getLogger(__name__)


class Tracers(TracerProvider):
    """The SDK's provider, with tracers of ours."""

    def get_tracer(
        self,
        instrumenting_module_name: str,
        instrumenting_library_version: str | None = None,
        schema_url: str | None = None,
        attributes: Attributes = None,
    ) -> trace.Tracer:
        """Return a tracer of a scope."""
        tracer = super().get_tracer(instrumenting_module_name, instrumenting_library_version, schema_url, attributes)
        # OTEL_SDK_DISABLED makes it one that does nothing.
        return _Tracer(tracer) if isinstance(tracer, Tracer) else tracer


class _Tracer(trace.Tracer):
    """Makes the spans that it can, and has the SDK's tracer make the others."""

    def __init__(self, tracer: Tracer) -> None:
        self._sdk = tracer
        self._samples_all = tracer.sampler in (DEFAULT_ON, ALWAYS_ON)

    def start_span(
        self,
        name: str,
        context: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Attributes = None,
        links: Sequence[Link] | None = (),
        start_time: int | None = None,
        record_exception: bool = True,  # noqa: FBT001, FBT002 - likewise
        set_status_on_exception: bool = True,  # noqa: FBT001, FBT002 - likewise
    ) -> trace.Span:
        """Start a span."""
        parent: SpanContext | None = trace.get_current_span(context).get_span_context()
        assert parent is not None  # noqa: S101 - the API has an invalid one for none
        if (
            links
            or not self._samples_all
            or (parent.is_valid and not parent.trace_flags.sampled)
            or not (record_exception and set_status_on_exception)
        ):
            return self._sdk.start_span(
                name, context, kind, attributes, links, start_time, record_exception, set_status_on_exception
            )
        ids = self._sdk.id_generator
        if parent.is_valid:
            flags = _SAMPLED_AND_RANDOM if parent.trace_flags.random_trace_id else _SAMPLED
            own = SpanContext(parent.trace_id, ids.generate_span_id(), False, flags, parent.trace_state)
        else:
            parent = None
            flags = _SAMPLED_AND_RANDOM if ids.is_trace_id_random() else _SAMPLED
            trace_id = ids.generate_trace_id()
            own = SpanContext(trace_id, ids.generate_span_id(), False, flags, DEFAULT_TRACE_STATE)
        span: Span = _Span(
            self._sdk, name, own, parent, kind, attributes, time.time_ns() if start_time is None else start_time
        )
        self._sdk.span_processor.on_start(span, parent_context=context)
        return span

    @contextmanager
    def start_as_current_span(  # type: ignore[override]  # noqa: PLR0917 - the API's; a wrapper of contextmanager is private
        self,
        name: str,
        context: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Attributes = None,
        links: Sequence[Link] | None = (),
        start_time: int | None = None,
        record_exception: bool = True,  # noqa: FBT001, FBT002 - likewise
        set_status_on_exception: bool = True,  # noqa: FBT001, FBT002 - likewise
        end_on_exit: bool = True,  # noqa: FBT001, FBT002 - likewise
    ) -> Iterator[trace.Span]:
        """Start a span and make it the current one within the block."""
        span = self.start_span(
            name, context, kind, attributes, links, start_time, record_exception, set_status_on_exception
        )
        with trace.use_span(span, end_on_exit, record_exception, set_status_on_exception):
            yield span


class _Span(Span):
    """A span whose attributes are a plain dict, and which is exported itself once it has ended."""

    def __init__(
        self,
        tracer: Tracer,
        name: str,
        context: SpanContext,
        parent: SpanContext | None,
        kind: SpanKind,
        attributes: Attributes,
        start_time: int,
    ) -> None:
        # All that the SDK's class reads, and not its __init__: that is what costs.
        self._name = name
        self._context = context
        self._parent = parent
        self._kind = kind
        self._attributes: dict[str, Any] = dict(attributes) if attributes else {}
        self._events: Any = ()
        self._links: Any = ()
        self._status = _UNSET
        self._start_time: int | None = start_time
        self._end_time: int | None = None
        self._lock = threading.Lock()
        self._resource = tracer.resource
        self._instrumentation_info = tracer.instrumentation_info
        self._instrumentation_scope = tracer._instrumentation_scope  # noqa: SLF001 - whoever replaces the constructor does
        self._limits = tracer._span_limits  # noqa: SLF001 - likewise
        self._span_processor = tracer.span_processor
        self._record_exception = self._set_status_on_exception = True

    def set_attribute(self, key: str, value: AttributeValue) -> None:
        """Set an attribute."""
        if self._end_time is None:
            self._attributes[key] = value
        else:
            self.set_attributes({key: value})

    def set_attributes(self, attributes: Mapping[str, AttributeValue]) -> None:
        """Set attributes. Their types are the caller's to keep to: of another an exporter writes its text."""
        if self._end_time is None:
            self._attributes.update(attributes)
        else:
            _log.warning("attributes of a span that has ended: %s", ", ".join(attributes))

    def end(self, end_time: int | None = None) -> None:
        """End the span and have it exported."""
        with self._lock:
            if self._end_time is not None:
                _log.warning("a span ends twice: %s", self._name)
                return
            self._end_time = time.time_ns() if end_time is None else end_time
        self._span_processor.on_end(self)

    def _add_event(self, event: Event) -> None:
        with self._lock:
            if isinstance(self._events, tuple):
                self._events = BoundedList(self._limits.max_events)
        super()._add_event(event)

    def _add_link(self, link: Link) -> None:
        with self._lock:
            if isinstance(self._links, tuple):
                self._links = BoundedList(self._limits.max_links)
        super()._add_link(link)
