"""Exemplars lead to traces that are kept, and to no others."""

from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import Tracer

from services.kit.exemplars import KEEP, KeptSpans, is_kept, keep_if_worse
from services.kit.instruments import Counter, Histogram

WAIT = Histogram("a.wait", "x", unit="s", boundaries=(1, 10))
DONE = Counter("a.done", "x")


@pytest.fixture
def reader() -> InMemoryMetricReader:
    return InMemoryMetricReader()


@pytest.fixture
def provider(reader: InMemoryMetricReader) -> MeterProvider:
    return MeterProvider([reader], exemplar_filter=KeptSpans())


@pytest.fixture
def tracer() -> Iterator[Tracer]:
    provider = TracerProvider(shutdown_on_exit=False)
    yield provider.get_tracer("test")
    provider.shutdown()


def exemplars(reader: InMemoryMetricReader) -> list[tuple[str, int, Any]]:
    data = reader.get_metrics_data()
    assert data is not None
    return [
        (metric.name, exemplar.trace_id, exemplar.value)
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.data.data_points
        for exemplar in point.exemplars  # type: ignore[union-attr]
    ]


def test_measurements_of_kept_spans_alone_become_exemplars(
    reader: InMemoryMetricReader, provider: MeterProvider, tracer: Tracer
) -> None:
    wait, done = (each.build(provider.get_meter("test")) for each in (WAIT, DONE))
    wait.record(0.5)
    with tracer.start_as_current_span("plain"):
        wait.record(2)
        done.add(1)
    with tracer.start_as_current_span("kept") as span:
        # Marked in the middle of it, as ingest does.
        wait.record(3)
        span.set_attribute(KEEP, value=True)
        wait.record(20)
        done.add(1)
        with tracer.start_as_current_span("below"):
            wait.record(0.25)
    trace_id = span.get_span_context().trace_id
    assert sorted(exemplars(reader)) == [("a.done", trace_id, 1), ("a.wait", trace_id, 20)]


def test_without_recorded_spans_there_are_no_exemplars(reader: InMemoryMetricReader, provider: MeterProvider) -> None:
    wait = WAIT.build(provider.get_meter("test"))
    tracer = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False).get_tracer("test")
    with tracer.start_as_current_span("not recorded", attributes={KEEP: True}):
        wait.record(1)
    assert exemplars(reader) == []


@pytest.mark.parametrize(
    ("seconds", "is_fault", "is_marked"), [(0.999, False, False), (1.0, False, True), (0.0, True, True)]
)
def test_what_failed_or_was_slow_is_kept(tracer: Tracer, seconds: float, *, is_fault: bool, is_marked: bool) -> None:
    with tracer.start_as_current_span("call") as span:
        keep_if_worse(span, seconds, is_fault=is_fault)
        assert is_kept() is is_marked
