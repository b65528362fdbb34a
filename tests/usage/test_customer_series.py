"""Series of customers are bounded, however many customers there are."""

import tracemalloc

import pytest
from opentelemetry.metrics import Meter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from services.kit.instruments import CARDINALITY_LIMITS
from services.usage.metrics import LimitMetrics, RollupMetrics, RollupState
from tests.kit.measured import points

CUSTOMERS = [f"cus_{number:05d}" for number in range(50_000)]
METERS = ("messages", "storage", "users")
MOST = 1_000


@pytest.fixture
def reader() -> InMemoryMetricReader:
    return InMemoryMetricReader(cardinality_limits=CARDINALITY_LIMITS)


@pytest.fixture
def meter(reader: InMemoryMetricReader) -> Meter:
    return MeterProvider([reader]).get_meter("services.usage")


def counted(reader: InMemoryMetricReader, name: str) -> dict[tuple[str, ...], float]:
    return {tuple(point.attributes.values()): point.value for point in points(reader.get_metrics_data(), name, {})}


def test_of_50_000_customers_so_many_are_counted_by_name_and_the_others_together(
    meter: Meter, reader: InMemoryMetricReader
) -> None:
    rollup = RollupMetrics(meter, RollupState(), most_customers=MOST)
    for _ in range(2):
        for customer in CUSTOMERS:
            for name in METERS:
                rollup.added(customer, name, 2)
    found = counted(reader, "billing.usage.increment")
    # 1,000 customers by three meters, and the others by three: more than the SDK would keep apart by itself (2,000).
    assert len(found) == 3_003
    # Two rounds of 2 each; those of 49,000 customers together.
    assert {value for (customer, _), value in found.items() if customer != "other"} == {4}
    assert {value for (customer, _), value in found.items() if customer == "other"} == {196_000}
    # Nothing is lost: 50,000 customers, three meters, two rounds of 2.
    assert sum(found.values()) == 600_000


def test_refusals_and_failures_of_50_000_customers_are_bounded(meter: Meter, reader: InMemoryMetricReader) -> None:
    limits = LimitMetrics(meter, most_customers=MOST)
    rollup = RollupMetrics(meter, RollupState(), most_customers=MOST)
    for customer in CUSTOMERS:
        limits.exceeded(customer, "messages")
    for at in range(0, len(CUSTOMERS), 500):
        rollup.failed("internal", [(customer, "messages") for customer in CUSTOMERS[at : at + 500]])
    exceeded = counted(reader, "billing.limit.exceeded")
    assert (len(exceeded), exceeded["other", "messages"]) == (1_001, 49_000)
    failed = counted(reader, "billing.usage.increment.errors")
    # 1,000 customers, the others, and the three kinds of failures of which no customer is known, which are 0.
    assert len(failed) == 1_004
    # A turn that failed for several of the others failed once for them: 98 turns of 500 of the 49,000.
    assert failed["other", "messages", "internal"] == 98
    assert failed["all", "all", "internal"] == 0


def test_customers_take_no_more_memory_than_the_most_of_them(meter: Meter, reader: InMemoryMetricReader) -> None:
    rollup = RollupMetrics(meter, RollupState(), most_customers=MOST)
    for customer in CUSTOMERS[: MOST + 1]:
        rollup.added(customer, "messages", 1)
    reader.get_metrics_data()
    tracemalloc.start()
    before = tracemalloc.take_snapshot()
    for number in range(50_000):
        rollup.added(f"late_{number}", "messages", 1)
    reader.get_metrics_data()
    grown = sum(each.size_diff for each in tracemalloc.take_snapshot().compare_to(before, "filename"))
    tracemalloc.stop()
    # The names alone would be 3 MB, the series that they would be 50.
    assert grown < 1_000_000
