"""Trace context through the client, by OpenTelemetry's API alone."""

from collections.abc import Callable
from datetime import UTC, datetime

import grpc
from fake_usage import Failure, RunningUsage
from opentelemetry import trace
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from meterscope import Client, Event


def test_a_batch_is_one_client_span_whose_context_the_server_gets(
    start_usage: Callable[..., RunningUsage], spans: InMemorySpanExporter
) -> None:
    usage = start_usage(Failure(grpc.StatusCode.UNAVAILABLE))
    with Client(usage.address) as client:
        client.ingest([Event(type="t", customer_key="a", source="s", time=datetime.now(UTC))])
    (span,) = spans.get_finished_spans()
    assert span.kind is SpanKind.CLIENT
    assert span.name == "meterscope.usage.v1.EventService/IngestEvents"
    assert dict(span.attributes or {})["meterscope.batch.events"] == 1
    assert [event.name for event in span.events] == ["retry"]
    for metadata in usage.servicer.metadata:
        assert metadata["traceparent"].split("-")[1:3] == [
            trace.format_trace_id(span.context.trace_id),
            trace.format_span_id(span.context.span_id),
        ]


def test_an_event_keeps_the_trace_in_which_it_was_tracked(
    start_usage: Callable[..., RunningUsage], spans: InMemorySpanExporter
) -> None:
    usage = start_usage()
    with Client(usage.address, source="s") as client, trace.get_tracer("test").start_as_current_span("request") as span:
        client.track("t", customer_key="a")
        context = span.get_span_context()
    assert usage.servicer.calls[0].events[0].trace_id == trace.format_trace_id(context.trace_id)
    (batch,) = [span for span in spans.get_finished_spans() if span.kind is SpanKind.CLIENT]
    assert [link.context.span_id for link in batch.links] == [context.span_id]
