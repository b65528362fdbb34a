"""The instruments say what the telemetry catalogue says they do."""

from datetime import timedelta
from decimal import Decimal

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader, Metric, NumberDataPoint

from services.kit.money import Money
from services.payments.metrics import PaymentMetrics


@pytest.fixture
def reader() -> InMemoryMetricReader:
    return InMemoryMetricReader()


@pytest.fixture
def metrics(reader: InMemoryMetricReader) -> PaymentMetrics:
    return PaymentMetrics(MeterProvider([reader]).get_meter("services.payments"), ["sandbox"])


def read(reader: InMemoryMetricReader) -> dict[str, Metric]:
    data = reader.get_metrics_data()
    assert data is not None
    return {
        metric.name: metric
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }


def values(metric: Metric) -> dict[tuple[object, ...], float]:
    points = [point for point in metric.data.data_points if isinstance(point, NumberDataPoint)]
    return {tuple((point.attributes or {}).values()): point.value for point in points}


@pytest.mark.usefixtures("metrics")
def test_counters_start_at_zero_so_that_the_first_failure_is_a_rate(reader: InMemoryMetricReader) -> None:
    found = read(reader)

    assert values(found["billing.payment.success"]) == {("sandbox",): 0}
    assert values(found["billing.payment.failure"]) == {
        ("sandbox", "insufficient_funds"): 0,
        ("sandbox", "card_expired"): 0,
        ("sandbox", "provider_down"): 0,
    }


def test_outcomes_are_counted_by_gateway_reason_and_currency(
    metrics: PaymentMetrics, reader: InMemoryMetricReader
) -> None:
    metrics.succeeded("sandbox", Money(Decimal("1234.50"), "INR"))
    metrics.failed("sandbox", "card_expired")
    found = read(reader)

    assert values(found["billing.payment.success"]) == {("sandbox",): 1}
    assert values(found["billing.payment.failure"])["sandbox", "card_expired"] == 1
    assert values(found["billing.payments.collected"]) == {("INR",): 1234.5}


def test_the_duration_has_a_boundary_at_the_alerts_threshold(
    metrics: PaymentMetrics, reader: InMemoryMetricReader
) -> None:
    metrics.answered("sandbox", timedelta(seconds=3))
    metric = read(reader)["billing.payment.processing.duration"]

    assert metric.unit == "s"
    point = metric.data.data_points[0]
    assert isinstance(point, HistogramDataPoint)
    assert 5 in point.explicit_bounds
    assert point.sum == 3
