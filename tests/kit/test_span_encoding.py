"""Spans as OTLP: what the SDK's own encoder makes of them, and that without falling over what OTLP cannot say."""

from collections.abc import Sequence
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, StatusCode, TraceFlags
from opentelemetry.trace.span import TraceState

from services.kit import otlp
from services.kit.span_encoding import encoded

CARD = "4242 4242 4242 4242"
FAR = SpanContext(
    0xA27C09B8E0C24E991BB9830487316B2C, 0x00F067AA0BA902B7, is_remote=True, trace_flags=TraceFlags(1),
    trace_state=TraceState([("vendor", "a"), ("other", "b=c")]),
)  # fmt: skip
ALL_SORTS: dict[str, Any] = {
    "text": "a", "empty": "", "long": "x" * 2_000, "int": 1, "true": True, "one": 1.0, "none": None, "large": 2**62,
    "negative": -7, "texts": ("a", "b"), "numbers": (1, 2), "flags": (True, False), "nothing": (),
    "mapping": {"a": 1, "b": {"c": [1, "d"]}}, "same as int": True,
}  # fmt: skip


def tracer_to(exporter: SpanExporter) -> trace.Tracer:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider.get_tracer("tests")


def spans(*resources: Resource, limits: SpanLimits | None = None) -> list[ReadableSpan]:
    """Make one span of every sort for each resource, in two scopes, mixed."""
    exporter = InMemorySpanExporter()
    for resource in resources:
        provider = TracerProvider(resource=resource, span_limits=limits, shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        first = provider.get_tracer("first", "1.0", schema_url="schema", attributes={"service": "usage"})
        second = provider.get_tracer("second")
        there = trace.set_span_in_context(NonRecordingSpan(FAR))
        links = [Link(FAR, {"n": 1}), Link(SpanContext(1, 2, is_remote=False))]
        with first.start_as_current_span("from afar", there, SpanKind.SERVER, ALL_SORTS, links) as span:
            span.add_event("happened", {"how": "well", "often": 3}, 1_700_000_000_000_000_000)
            span.record_exception(ValueError("no"))
            span.set_status(StatusCode.ERROR, "failed")
            for kind in SpanKind:
                with second.start_as_current_span(f"a {kind.name}", kind=kind) as inner:
                    inner.set_attributes({"n": 1, "b": True, "f": 1.0})
                    inner.set_status(StatusCode.OK)
        first.start_span("bare").end()
    return list(exporter.get_finished_spans())


def same(made: Sequence[ReadableSpan]) -> bool:
    return encoded(made) == encode_spans(made)


def test_spans_are_encoded_as_the_sdk_does_it() -> None:
    assert same(spans(Resource({"service.name": "usage", "process.pid": 7, "blob": b"\x00\xff"}, "schema")))


def test_resources_and_scopes_hold_their_own_spans() -> None:
    made = spans(Resource({"service.name": "usage"}), Resource({"service.name": "billing"}))
    assert same(made)
    assert same(made[::-1])
    assert [len(each.scope_spans) for each in encoded(made).resource_spans] == [2, 2]


def test_attributes_that_are_equal_to_python_stay_of_their_type() -> None:
    # 1, 1.0 and True are one key of a dictionary: remembered as one they would change their type.
    made = spans(Resource({}))
    assert same(made)
    assert same(made)
    inner = next(
        each for scope in encoded(made).resource_spans[0].scope_spans for each in scope.spans if "CLIENT" in each.name
    )
    values = {each.key: each.value.WhichOneof("value") for each in inner.attributes}
    assert values == {"n": "int_value", "b": "bool_value", "f": "double_value"}


def test_what_was_dropped_is_counted() -> None:
    limits = SpanLimits(max_span_attributes=3, max_events=1, max_links=1, max_event_attributes=1, max_link_attributes=0)
    made = spans(Resource({}), limits=limits)
    assert same(made)
    (span,) = [
        each
        for scope in encoded(made).resource_spans[0].scope_spans
        for each in scope.spans
        if each.name == "from afar"
    ]
    assert span.dropped_attributes_count == len(ALL_SORTS) - 3
    assert (span.dropped_events_count, span.dropped_links_count) == (1, 1)


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, "\ud800", ("a", 2**70)])
def test_an_attribute_that_otlp_cannot_say_costs_the_others_nothing(value: Any) -> None:
    exporter = InMemorySpanExporter()
    tracer_to(exporter).start_span("a", attributes={"before": 1, "odd": value, "behind": 2}).end()
    request = encoded(exporter.get_finished_spans())
    (span,) = request.resource_spans[0].scope_spans[0].spans
    assert [each.key for each in span.attributes] == ["before", "behind"]


def test_secrets_are_taken_out_of_all_that_a_span_says() -> None:
    exporter = InMemorySpanExporter()
    tracer = tracer_to(exporter)
    secrets: dict[str, Any] = {
        "url.path": "/v1/customers/person@example.org",
        "api_key": "hunter2",
        "db.query.text": "SELECT 1 " * 100 + f"'{CARD}'",
        "cards": ("a", CARD),
        "n": 4242424242424242,
        "token": 7,
    }
    link = Link(SpanContext(1, 2, is_remote=False), {"password": "hunter2"})
    for _ in range(2):
        with tracer.start_as_current_span("GET person@example.org", attributes=secrets, links=[link]) as span:
            span.record_exception(ValueError(f"no card: {CARD}"))
            span.set_status(StatusCode.ERROR, "password=hunter2")
    text = str(encoded(exporter.get_finished_spans()))
    for secret in ("person@", "hunter2", CARD, "4242424242424242"):
        assert secret not in text
    assert text.count('string_value: "[redacted card]"') == 4  # of two spans: "n", and the second of "cards"
    assert "int_value: 7" not in text


def deep(levels: int) -> dict[str, Any]:
    return {"a": deep(levels - 1)} if levels else {}


def test_a_span_that_otlp_cannot_say_costs_the_others_nothing() -> None:
    exporter = InMemorySpanExporter()
    tracer = tracer_to(exporter)
    for name, attributes in (("before", {}), ("half \ud800", {}), ("deep", {"a": deep(60)}), ("behind", {})):
        tracer.start_span(name, attributes=attributes).end()
    tracer.start_span("early", start_time=-1).end()
    request = encoded(exporter.get_finished_spans())
    assert [each.name for each in request.resource_spans[0].scope_spans[0].spans] == ["before", "behind"]


def test_what_is_sent_to_a_collector_is_redacted(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[ExportTraceServiceRequest] = []

    class Collector:
        def Export(self, request: ExportTraceServiceRequest, **_rest: object) -> None:
            sent.append(request)

    exporter = otlp.SpanExporter("127.0.0.1:1", insecure=True)
    monkeypatch.setattr(exporter, "_client", Collector())
    tracer_to(exporter).start_span("GET", attributes={"url.path": "/person@example.org"}).end()
    (request,) = sent
    ((attribute,),) = [each.attributes for each in request.resource_spans[0].scope_spans[0].spans]
    assert attribute.value.string_value == "/[redacted e-mail]"


@pytest.mark.parametrize("length", [100, 1_000, 100_000])
def test_secrets_are_found_in_texts_of_any_length(length: int) -> None:
    exporter = InMemorySpanExporter()
    tracer_to(exporter).start_span("a", attributes={"text": "x " * (length // 2) + CARD}).end()
    assert CARD not in str(encoded(exporter.get_finished_spans()))


def test_no_spans_are_an_empty_request() -> None:
    assert same([])
