"""The instruments say what the telemetry catalogue says they do."""

from datetime import UTC, datetime, timedelta

import pytest
from opentelemetry.metrics import Meter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, Metric, NumberDataPoint

from services.usage.domain.correction import Kind
from services.usage.domain.verdict import Outcome
from services.usage.metrics import (
    CorrectionMetrics,
    Holder,
    IngestMetrics,
    LimitGauges,
    LimitMetrics,
    LimitState,
    RollupMetrics,
    RollupState,
    Server,
    Share,
)


@pytest.fixture
def reader() -> InMemoryMetricReader:
    return InMemoryMetricReader()


@pytest.fixture
def meter(reader: InMemoryMetricReader) -> Meter:
    return MeterProvider([reader]).get_meter("services.usage")


def read(reader: InMemoryMetricReader) -> dict[str, Metric]:
    data = reader.get_metrics_data()
    return {
        metric.name: metric
        for resource in (data.resource_metrics if data else ())
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }


def values(metric: Metric) -> dict[tuple[object, ...], float]:
    points = [point for point in metric.data.data_points if isinstance(point, NumberDataPoint)]
    return {tuple((point.attributes or {}).values()): point.value for point in points}


def test_outcomes_start_at_zero_and_are_counted(meter: Meter, reader: InMemoryMetricReader) -> None:
    metrics = IngestMetrics(meter)
    transports = ("grpc", "stream", "rest", "cloudevents")
    assert values(read(reader)["billing.events.ingested"]) == {
        (outcome.name.lower(), transport): 0 for outcome in Outcome for transport in transports
    }

    metrics.took([(Outcome.ACCEPTED, 998), (Outcome.REJECTED, 2)], 0.02)

    counted = values(read(reader)["billing.events.ingested"])
    assert (counted["accepted", "grpc"], counted["rejected", "grpc"]) == (998, 2)


def test_corrections_start_at_zero_and_are_counted(meter: Meter, reader: InMemoryMetricReader) -> None:
    metrics = CorrectionMetrics(meter)
    metrics.corrected(Kind.AMEND, is_adjustment=False)
    metrics.corrected(Kind.CANCEL, is_adjustment=True)

    assert values(read(reader)["billing.event.corrections"]) == {
        ("amend", "open"): 1,
        ("amend", "closed"): 0,
        ("cancel", "open"): 0,
        ("cancel", "closed"): 1,
    }


def test_a_histogram_of_ingestion_has_the_bound_of_its_alert(meter: Meter, reader: InMemoryMetricReader) -> None:
    IngestMetrics(meter).took([], 0.5)

    (point,) = read(reader)["billing.event.ingestion.duration"].data.data_points
    assert 1 in point.explicit_bounds  # type: ignore[union-attr]


def test_customers_beyond_the_most_are_counted_together(meter: Meter, reader: InMemoryMetricReader) -> None:
    metrics = RollupMetrics(meter, RollupState(), most_customers=2)
    for customer in ("cus_1", "cus_2", "cus_3", "cus_4", "cus_1"):
        metrics.added(customer, "requests", 10)

    assert values(read(reader)["billing.usage.increment"]) == {
        ("cus_1", "requests"): 20,
        ("cus_2", "requests"): 10,
        ("other", "requests"): 20,
    }


def test_state_is_reported_by_the_process_that_rolls_up_alone(meter: Meter, reader: InMemoryMetricReader) -> None:
    state = RollupState()
    RollupMetrics(meter, state, most_customers=2)
    assert "billing.rollup.lag" not in read(reader)

    state.holders = [Holder("billing", "reports", 9.0)]
    state.as_of = datetime.now(UTC) - timedelta(seconds=90)
    found = read(reader)

    assert values(found["billing.rollup.held_back"]) == {("billing", "reports"): 9.0}
    # It goes on growing while nothing is rolled up.
    ((_, lag),) = values(found["billing.rollup.lag"]).items()
    assert 90 <= lag < 150


def test_limit_checks_are_counted_by_where_the_answer_came_from(meter: Meter, reader: InMemoryMetricReader) -> None:
    metrics = LimitMetrics(meter, most_customers=1)
    metrics.answered("database")
    for customer in ("cus_1", "cus_2", "cus_1", "cus_3"):
        metrics.exceeded(customer, "requests")
    found = read(reader)

    assert values(found["billing.limit.checks"]) == {("live",): 0, ("database",): 1}
    assert values(found["billing.limit.exceeded"]) == {("cus_1", "requests"): 2, ("other", "requests"): 2}


def test_gauges_of_limits_are_reported_by_the_process_that_reads_them_alone(
    meter: Meter, reader: InMemoryMetricReader
) -> None:
    state = LimitState()
    LimitGauges(meter, state)
    names = {
        "billing.usage.percentage",
        "billing.tenant.using_defaults",
        "billing.redis.memory",
        "billing.redis.usage_keys_total",
        "billing.redis.connections_active",
    }
    assert not names & set(read(reader))

    state.shares = [Share("cus_1", "requests", 87.5)]
    state.without_plan = [("cus_1", True), ("cus_2", False)]
    state.server = Server(memory=2_000_000, connections=7, usage_keys=41)
    found = read(reader)

    assert values(found["billing.usage.percentage"]) == {("cus_1", "requests"): 87.5}
    assert values(found["billing.tenant.using_defaults"]) == {("cus_1",): 1, ("cus_2",): 0}
    assert values(found["billing.redis.memory"]) == {(): 2_000_000}
    assert values(found["billing.redis.usage_keys_total"]) == {(): 41}
    assert values(found["billing.redis.connections_active"]) == {(): 7}
    # Prometheus makes billing_redis_memory_bytes of it, and appends nothing to the others.
    assert {name: found[name].unit for name in names} == dict.fromkeys(names, "") | {"billing.redis.memory": "By"}

    # Whoever lost the lease since it read shows none of it any more.
    state.is_held = lambda: False
    assert not names & set(read(reader))
