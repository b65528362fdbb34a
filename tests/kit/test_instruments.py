"""Declarations make instruments, and say what Prometheus will show."""

from typing import Any

import pytest
from opentelemetry.metrics import Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, Metric

from services.kit.instruments import Counter, Declaration, Gauge, Histogram, Label


@pytest.fixture
def reader() -> InMemoryMetricReader:
    return InMemoryMetricReader()


def read(reader: InMemoryMetricReader) -> dict[str, Metric]:
    data = reader.get_metrics_data()
    return {
        metric.name: metric
        for resource in (data.resource_metrics if data else ())
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }


def points(metric: Metric) -> list[tuple[dict[str, Any], Any]]:
    return [(dict(point.attributes or {}), point.value) for point in metric.data.data_points]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("declaration", "name"),
    [
        # What the real Prometheus makes of them: tests/stack/test_stack_metrics.py reads them back from there.
        (Counter("billing.usage.increment", "x"), "billing_usage_increment_total"),
        (Counter("process.cpu.time", "x", unit="s"), "process_cpu_time_seconds_total"),
        (Counter("cpython.gc.collections", "x", unit="{collection}"), "cpython_gc_collections_total"),
        (Gauge("billing.usage.percentage", "x"), "billing_usage_percentage"),
        (Gauge("process.memory.utilization", "x", unit="1"), "process_memory_utilization_ratio"),
        (Gauge("billing.redis.memory", "x", unit="By"), "billing_redis_memory_bytes"),
        (Gauge("billing.redis.usage_keys_total", "x"), "billing_redis_usage_keys_total"),
        (Gauge("billing.wait_seconds", "x", unit="s"), "billing_wait_seconds"),
        (Histogram("billing.event.lag", "x", unit="s", boundaries=(1,)), "billing_event_lag_seconds"),
    ],
)
def test_a_name_is_what_prometheus_makes_of_it(declaration: Declaration, name: str) -> None:
    assert declaration.prometheus_name == name


def test_a_histogram_is_three_series() -> None:
    assert Histogram("a.wait", "x", unit="s", boundaries=(1,)).prometheus_series == (
        "a_wait_seconds_bucket",
        "a_wait_seconds_sum",
        "a_wait_seconds_count",
    )


def test_labels_are_prometheus_own_with_the_tenant_beside_the_customer() -> None:
    labels = (Label("customer_id"), Label("rpc.method"))
    assert Counter("a.b", "x", labels=labels).prometheus_labels == ("customer_id", "tenant_id", "rpc_method")


def test_a_counter_starts_each_series_of_closed_labels_at_zero(reader: InMemoryMetricReader) -> None:
    declared = Counter("a.b", "x", labels=(Label("kind", ("x", "y")), Label("status", ("good", "bad"))))
    declared.build(MeterProvider([reader]).get_meter("test")).add(2, {"kind": "y", "status": "bad"})
    assert points(read(reader)["a.b"]) == [
        ({"kind": "x", "status": "good"}, 0),
        ({"kind": "x", "status": "bad"}, 0),
        ({"kind": "y", "status": "good"}, 0),
        ({"kind": "y", "status": "bad"}, 2),
    ]


def test_a_counter_without_labels_starts_at_zero(reader: InMemoryMetricReader) -> None:
    Counter("a.b", "x").build(MeterProvider([reader]).get_meter("test"))
    assert points(read(reader)["a.b"]) == [({}, 0)]


def test_open_labels_start_where_they_are_known(reader: InMemoryMetricReader) -> None:
    declared = Counter("a.b", "x", labels=(Label("queue"), Label("status", ("good", "bad"))))
    counter = declared.build(MeterProvider([reader]).get_meter("test"))
    assert "a.b" not in read(reader)
    declared.start(counter, {"queue": "usage"})
    assert points(read(reader)["a.b"]) == [
        ({"queue": "usage", "status": "good"}, 0),
        ({"queue": "usage", "status": "bad"}, 0),
    ]


def test_a_gauge_reports_what_is_read_and_nothing_else(reader: InMemoryMetricReader) -> None:
    now: list[Observation] = []
    Gauge("a.b", "x").observe(MeterProvider([reader]).get_meter("test"), lambda: now)
    assert "a.b" not in read(reader)
    now.append(Observation(3, {"queue": "usage"}))
    assert points(read(reader)["a.b"]) == [({"queue": "usage"}, 3)]
    now.clear()
    assert "a.b" not in read(reader)


def test_a_histogram_has_the_declared_bounds(reader: InMemoryMetricReader) -> None:
    declared = Histogram("a.b", "x", unit="s", boundaries=(0.1, 1, 30), alerts=(1,))
    declared.build(MeterProvider([reader]).get_meter("test")).record(0.5)
    (point,) = read(reader)["a.b"].data.data_points
    assert tuple(point.explicit_bounds) == (0.1, 1, 30)  # type: ignore[union-attr]
    assert tuple(point.bucket_counts) == (0, 1, 0, 0)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Counter("a-b", "x"), "is no name"),
        (lambda: Counter("a.b", ""), "has no description"),
        (lambda: Gauge("a.b", "x", unit="furlong"), "whose suffix is not known"),
        (lambda: Gauge("a.b", "x", labels=(Label("c"), Label("c"))), "has a label twice"),
        (lambda: Histogram("a.b", "x"), "do not rise"),
        (lambda: Histogram("a.b", "x", boundaries=(1, 1)), "do not rise"),
        (lambda: Histogram("a.b", "x", boundaries=(1, 2), alerts=(1.5,)), r"no boundary at \[1.5\]"),
        (lambda: Histogram("a.b", "x", boundaries=(1,), labels=(Label("customer_id"),)), "a histogram by customer"),
    ],
)
def test_a_declaration_that_nobody_could_use_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
