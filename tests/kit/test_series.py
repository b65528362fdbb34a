"""Instruments that reach their series at once measure what the SDK's own do."""

import math
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from opentelemetry import metrics
from opentelemetry.sdk.metrics import Counter as SdkCounter
from opentelemetry.sdk.metrics import Histogram as SdkHistogram
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader, NumberDataPoint
from opentelemetry.sdk.trace import TracerProvider

from services.kit import series
from services.kit.exemplars import KEEP, KeptSpans

DELTA = {SdkCounter: AggregationTemporality.DELTA, SdkHistogram: AggregationTemporality.DELTA}
# Two orders of the same labels are one series.
LABELS: Sequence[Mapping[str, Any]] = ({"a": "x", "b": "y"}, {"b": "y", "a": "x"}, {"a": "z", "b": "y"}, {})
AMOUNTS = (0.5, 3, 0, 20.25, -1, math.nan, math.inf, 1)


def provider_of(*readers: InMemoryMetricReader) -> MeterProvider:
    return MeterProvider(readers, exemplar_filter=KeptSpans(), shutdown_on_exit=False)


def points(reader: InMemoryMetricReader) -> dict[str, list[dict[str, Any]]]:
    """Return what is exported, by instrument, without its times."""
    data = reader.get_metrics_data()
    found: dict[str, list[dict[str, Any]]] = {}
    for resource in data.resource_metrics if data else ():
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                each = [vars(point) for point in metric.data.data_points]
                found[metric.name] = [
                    {name: value for name, value in point.items() if not name.endswith("time_unix_nano")}
                    for point in each
                ]
    return found


def measure(meter: metrics.Meter, *, is_direct: bool, times: int = 3) -> None:
    counter = meter.create_counter("count")
    histogram = meter.create_histogram("record", explicit_bucket_boundaries_advisory=[1, 10])
    if is_direct:
        counter, histogram = series.counter(counter), series.histogram(histogram)
        assert not isinstance(counter, SdkCounter)
        assert not isinstance(histogram, SdkHistogram)
    for _ in range(times):
        for labels in LABELS:
            for amount in AMOUNTS:
                counter.add(amount, labels)
                histogram.record(amount, labels)
    counter.add(1)
    histogram.record(1)


@pytest.mark.parametrize("temporality", [{}, DELTA], ids=["cumulative", "delta"])
def test_series_are_those_of_the_sdk(temporality: dict[type, AggregationTemporality]) -> None:
    readers = [InMemoryMetricReader(temporality), InMemoryMetricReader(temporality)]
    meters = [provider_of(reader).get_meter("tests") for reader in readers]
    for _ in range(2):
        for meter, is_direct in zip(meters, (True, False), strict=True):
            measure(meter, is_direct=is_direct)
        ours, theirs = map(points, readers)
        assert ours == theirs
        assert len(ours["record"]) == 3
    # 0.5 + 3 + 0 + 20.25 + 1 = 24.75, three times, by two orders of the labels: 148.5; in one round of two, or in both.
    total = 148.5 if temporality else 297
    (point,) = [each for each in ours["count"] if each["attributes"] == {"a": "x", "b": "y"}]
    assert point["value"] == total


@pytest.mark.parametrize("amount", [-1, math.nan, math.inf])
def test_an_amount_that_is_none_at_first_spoils_nothing(amount: float) -> None:
    reader = InMemoryMetricReader()
    meter = provider_of(reader).get_meter("tests")
    counter, histogram = (
        series.counter(meter.create_counter("count")),
        series.histogram(meter.create_histogram("record")),
    )
    for each in (amount, amount, 2, amount, 3):
        counter.add(each, {"a": "b"})
        histogram.record(each, {"a": "b"})
    found = points(reader)
    assert [each["value"] for each in found["count"]] == [5]
    assert [(each["count"], each["sum"]) for each in found["record"]] == [(2, 5)]


def test_a_reader_that_comes_later_gets_what_comes_then() -> None:
    first, second = InMemoryMetricReader(), InMemoryMetricReader()
    provider = provider_of(first)
    counter = series.counter(provider.get_meter("tests").create_counter("count"))
    for _ in range(3):
        counter.add(1, {"a": "b"})
    provider.add_metric_reader(second)
    for _ in range(3):
        counter.add(1, {"a": "b"})
    assert [points(reader)["count"][0]["value"] for reader in (first, second)] == [6, 3]


def test_each_reader_gets_all() -> None:
    readers = [InMemoryMetricReader(), InMemoryMetricReader()]
    measure(provider_of(*readers).get_meter("tests"), is_direct=True)
    first, second = map(points, readers)
    assert first == second
    assert first["record"]


def test_beyond_the_limit_of_series_nothing_is_lost() -> None:
    reader = InMemoryMetricReader(cardinality_limits={SdkCounter: 2})
    counter = series.counter(provider_of(reader).get_meter("tests").create_counter("count"))
    for _ in range(3):
        for number in range(5):
            counter.add(1, {"n": str(number)})
    found = {tuple(each["attributes"].items()): each["value"] for each in points(reader)["count"]}
    assert found == {(("n", "0"),): 3, (("n", "1"),): 3, (("otel.metric.overflow", True),): 9}


def test_labels_that_are_equal_to_python_stay_apart() -> None:
    reader = InMemoryMetricReader()
    counter = series.counter(provider_of(reader).get_meter("tests").create_counter("count"))
    values = (1, True, 1.0, "1", ("1",), ["1"])
    for _ in range(3):
        for value in values:
            counter.add(1, {"n": value})
    assert [each["value"] for each in points(reader)["count"]] == [3, 3, 3, 3, 6]  # a list is a tuple


def test_a_series_begins_with_its_first_measurement() -> None:
    # Not with its first export: Prometheus would see nothing grow.
    reader = InMemoryMetricReader()
    counter = series.counter(provider_of(reader).get_meter("tests").create_counter("count"))
    before = time.time_ns()
    counter.add(1, {"a": "b"})
    after = time.time_ns()
    counter.add(1, {"a": "b"})
    data = reader.get_metrics_data()
    assert data is not None
    (point,) = data.resource_metrics[0].scope_metrics[0].metrics[0].data.data_points
    assert isinstance(point, NumberDataPoint)
    assert before <= (point.start_time_unix_nano or 0) <= after


def test_a_kept_span_gives_an_exemplar_whenever_it_comes() -> None:
    reader = InMemoryMetricReader()
    histogram = series.histogram(provider_of(reader).get_meter("tests").create_histogram("record"))
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("tests")
    for is_kept in (False, False, True, False):
        with tracer.start_as_current_span("a", attributes={KEEP: is_kept}):
            histogram.record(1, {"a": "b"})
    (point,) = points(reader)["record"]
    assert point["count"] == 4
    assert len(point["exemplars"]) == 1


def test_threads_lose_nothing_beside_exports() -> None:
    reader = InMemoryMetricReader()
    meter = provider_of(reader).get_meter("tests")
    counter = series.counter(meter.create_counter("count"))
    histogram = series.histogram(meter.create_histogram("record"))
    stop = threading.Event()

    def export() -> None:
        while not stop.is_set():
            reader.get_metrics_data()

    def work() -> None:
        for number in range(5_000):
            counter.add(1, {"n": str(number % 3)})
            histogram.record(1, {"n": str(number % 3)})

    exporting = threading.Thread(target=export)
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in (exporting, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    stop.set()
    exporting.join()
    found = points(reader)
    assert sum(each["value"] for each in found["count"]) == 20_000
    assert sum(each["count"] for each in found["record"]) == 20_000


def test_without_a_provider_nothing_is_in_between() -> None:
    counter = metrics.NoOpMeter("tests").create_counter("count")
    histogram = metrics.NoOpMeter("tests").create_histogram("record")
    assert series.counter(counter) is counter
    assert series.histogram(histogram) is histogram
