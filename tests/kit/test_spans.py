"""Spans of our tracers are those that the SDK's make, and where ours cannot make one the SDK does."""

import json
import logging
from collections.abc import Callable, Mapping
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, DEFAULT_ON, Sampler, TraceIdRatioBased
from opentelemetry.trace import (
    INVALID_SPAN,
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    Tracer,
)
from opentelemetry.trace.span import TraceState

from services.kit.redacted_spans import RedactedSpans
from services.kit.span_encoding import encoded
from services.kit.spans import Tracers

RESOURCE = Resource({"service.name": "usage"})
SAMPLED = SpanContext(
    0xA27C09B8E0C24E991BB9830487316B2C, 0x00F067AA0BA902B7, is_remote=True, trace_flags=TraceFlags(1),
    trace_state=TraceState([("vendor", "a")]),
)  # fmt: skip
RANDOM = SpanContext(1 << 100, 2, is_remote=True, trace_flags=TraceFlags(3))
UNSAMPLED = SpanContext(1 << 100, 2, is_remote=True, trace_flags=TraceFlags(0))


class Numbered(RandomIdGenerator):
    """Gives each provider's spans the same ids."""

    def __init__(self) -> None:
        self.last = 0

    def generate_span_id(self) -> int:
        self.last += 1
        return self.last

    def generate_trace_id(self) -> int:
        self.last += 1
        return self.last << 64


def exporter_of(
    provider: type[TracerProvider], sampler: Sampler = DEFAULT_ON, limits: SpanLimits | None = None
) -> tuple[Tracer, InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    made = provider(sampler, RESOURCE, shutdown_on_exit=False, id_generator=Numbered(), span_limits=limits)
    made.add_span_processor(SimpleSpanProcessor(exporter))
    return made.get_tracer("scope", "1", "schema", {"a": "b"}), exporter


def told(span: ReadableSpan) -> Mapping[str, Any]:
    """Return all that a span says, its times aside where they are the clock's."""
    return {
        "name": span.name,
        "context": span.get_span_context(),
        "parent": span.parent,
        "kind": span.kind,
        "attributes": dict(span.attributes or {}),
        "status": (span.status.status_code, span.status.description),
        "events": [(each.name, without_stack(each.attributes), each.dropped_attributes) for each in span.events],
        "links": [(each.context, dict(each.attributes or {})) for each in span.links],
        "resource": span.resource,
        "scope": span.instrumentation_scope,
        "dropped": (span.dropped_attributes, span.dropped_events, span.dropped_links),
    }


def without_stack(attributes: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: value for name, value in (attributes or {}).items() if name != "exception.stacktrace"}


def inside(span: SpanContext) -> Any:
    return trace.set_span_in_context(NonRecordingSpan(span))


def plain(tracer: Tracer) -> None:
    tracer.start_span("bare").end()
    with tracer.start_as_current_span("outer", kind=SpanKind.SERVER, attributes={"a": 1, "b": ("x", "y")}) as outer:
        outer.set_attribute("a", 2)
        outer.set_attributes({"c": True, "d": 1.5})
        outer.update_name("renamed")
        with tracer.start_as_current_span("inner", attributes={}) as inner:
            inner.set_status(StatusCode.OK)
            inner.set_status(StatusCode.ERROR, "too late")


def with_parents(tracer: Tracer) -> None:
    for parent in (SAMPLED, RANDOM, UNSAMPLED, INVALID_SPAN.get_span_context()):
        with tracer.start_as_current_span("child", inside(parent)), tracer.start_as_current_span("grandchild"):
            pass


def failing(tracer: Tracer) -> None:
    with pytest.raises(ValueError, match="no"), tracer.start_as_current_span("a"):
        raise ValueError("no")
    with (
        pytest.raises(ValueError, match="no"),
        tracer.start_as_current_span("b", record_exception=False, set_status_on_exception=False),
    ):
        raise ValueError("no")
    with pytest.raises(ValueError, match="no"), tracer.start_span("c"):
        raise ValueError("no")


def with_events_and_links(tracer: Tracer) -> None:
    with tracer.start_as_current_span("linked", links=[Link(SAMPLED, {"n": 1})]) as span:
        span.add_event("happened", {"how": "well"}, 1_700_000_000_000_000_000)
    with tracer.start_as_current_span("linked later") as span:
        for number in range(3):
            span.add_link(RANDOM, {"n": number})
            span.add_event("happened", {"n": number})
        span.record_exception(ValueError("no"), {"own": 1})


def after_its_end(tracer: Tracer) -> None:
    span = tracer.start_span("over", attributes={"a": 1})
    span.end()
    assert not span.is_recording()
    span.set_attribute("a", 2)
    span.set_attributes({"b": 2})
    span.add_event("late")
    span.add_link(SAMPLED)
    span.set_status(StatusCode.ERROR)
    span.update_name("late")
    span.end()


@pytest.mark.parametrize("sampler", [DEFAULT_ON, ALWAYS_ON, ALWAYS_OFF, TraceIdRatioBased(1.0)], ids=str)
@pytest.mark.parametrize("work", [plain, with_parents, failing, with_events_and_links, after_its_end])
def test_spans_say_what_those_of_the_sdk_say(work: Callable[[Tracer], None], sampler: Sampler) -> None:
    ours, theirs = exporter_of(Tracers, sampler), exporter_of(TracerProvider, sampler)
    for tracer, _ in (ours, theirs):
        work(tracer)
    assert [told(span) for span in ours[1].get_finished_spans()] == [
        told(span) for span in theirs[1].get_finished_spans()
    ]
    assert bool(ours[1].get_finished_spans()) == (sampler is not ALWAYS_OFF)


def test_events_and_links_are_bounded() -> None:
    limits = SpanLimits(max_events=2, max_links=1, max_event_attributes=0)
    ours, theirs = exporter_of(Tracers, limits=limits), exporter_of(TracerProvider, limits=limits)
    for tracer, _ in (ours, theirs):
        with_events_and_links(tracer)
    made = [told(span) for span in ours[1].get_finished_spans()]
    assert made == [told(span) for span in theirs[1].get_finished_spans()]
    assert made[1]["dropped"] == (0, 2, 2)  # of 4 events 2, of 3 links 1


def test_no_events_at_all_are_counted_as_dropped() -> None:
    limits = SpanLimits(max_events=0, max_links=0)
    ours, theirs = exporter_of(Tracers, limits=limits), exporter_of(TracerProvider, limits=limits)
    for tracer, _ in (ours, theirs):
        with_events_and_links(tracer)
    made = [told(span)["dropped"] for span in ours[1].get_finished_spans()]
    assert made == [told(span)["dropped"] for span in theirs[1].get_finished_spans()]
    assert made[1] == (0, 4, 3)


def test_times_are_the_clocks_or_given() -> None:
    tracer, exporter = exporter_of(Tracers)
    tracer.start_span("given", start_time=5).end(7)
    tracer.start_span("now").end()
    tracer.start_span("early", start_time=0).end(0)
    given, now, early = exporter.get_finished_spans()
    assert (given.start_time, given.end_time, early.start_time, early.end_time) == (5, 7, 0, 0)
    assert 10**18 < (now.start_time or 0) <= (now.end_time or 0)


def test_the_file_of_spans_says_the_same() -> None:
    ours, theirs = exporter_of(Tracers), exporter_of(TracerProvider)
    for tracer, _ in (ours, theirs):
        span = tracer.start_span("a", inside(SAMPLED), SpanKind.CLIENT, {"a": ("b", "c")}, start_time=5)
        span.add_event("happened", {"n": 1}, 6)
        span.set_status(StatusCode.ERROR, "no")
        span.end(7)
    assert ours[1].get_finished_spans()[0].to_json() == theirs[1].get_finished_spans()[0].to_json()


def test_what_json_and_otlp_have_no_type_for_is_exported_as_text() -> None:
    tracer, exporter = exporter_of(Tracers)
    odd: Any = {"price": Decimal("1.50"), "day": date(2026, 11, 22), "prices": [Decimal(2)], "by": {"day": Decimal(3)}}
    tracer.start_span("odd", attributes=odd).end()
    (span,) = exporter.get_finished_spans()
    written = InMemorySpanExporter()
    RedactedSpans(written).export([span])
    texts = {"price": "1.50", "day": "2026-11-22", "prices": ["2"], "by": {"day": "3"}}
    assert json.loads(written.get_finished_spans()[0].to_json())["attributes"] == texts
    (encoded_span,) = encoded([span]).resource_spans[0].scope_spans[0].spans
    values = {each.key: each.value for each in encoded_span.attributes}
    assert values["price"].string_value == "1.50"
    assert values["day"].string_value == "2026-11-22"
    assert [each.string_value for each in values["prices"].array_value.values] == ["2"]


def test_processors_see_the_beginning_with_its_context_and_the_end() -> None:
    class Watching(SpanProcessor):
        def __init__(self) -> None:
            self.seen: list[tuple[str, str]] = []

        def on_start(self, span: Span, parent_context: Any = None) -> None:
            self.seen.append(("start", trace.get_current_span(parent_context).get_span_context().span_id.__str__()))
            span.set_attribute("seen", value=True)

        def on_end(self, span: ReadableSpan) -> None:
            self.seen.append(("end", str((span.attributes or {})["seen"])))

    watching, provider = Watching(), Tracers(shutdown_on_exit=False)
    provider.add_span_processor(watching)
    provider.get_tracer("scope").start_span("a", inside(RANDOM)).end()
    assert watching.seen == [("start", "2"), ("end", "True")]


def test_use_after_the_end_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    tracer, exporter = exporter_of(Tracers)
    with caplog.at_level(logging.WARNING):
        after_its_end(tracer)
    assert "attributes of a span that has ended: a" in caplog.messages
    assert "a span ends twice: over" in caplog.messages
    assert len(exporter.get_finished_spans()) == 1


def test_a_disabled_sdk_makes_no_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    tracer, exporter = exporter_of(Tracers)
    with tracer.start_as_current_span("a") as span:
        assert not span.is_recording()
    assert exporter.get_finished_spans() == ()
