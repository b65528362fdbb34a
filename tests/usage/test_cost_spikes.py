"""Spikes of cost: told once, in whatever order the two periods that are compared are priced."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Barrier

import grpc
import psycopg
import pytest
from eventually import eventually
from opentelemetry import metrics
from usage_harness import Alerts, Client, event

from meterscope.billing.v1 import catalog_service_pb2 as catalog_pb
from meterscope.billing.v1 import catalog_service_pb2_grpc as catalog_grpc
from services.kit.channel import open_channel
from services.kit.db import Database
from services.kit.outbox import Outbox
from services.usage.clients import Billing
from services.usage.metrics import CostMetrics
from services.usage.settings import Settings
from services.usage.store import costs as store
from services.usage.store.costs import CustomerPeriod, Place
from services.usage.usecases.costs import Costs

pytestmark = pytest.mark.usefixtures("worker", "meters")

PERIOD = timedelta(days=30)


class Prices(catalog_grpc.CatalogServiceServicer):
    """The edge to billing: a request costs a rupee. Answers of calls that come together leave together, if told so."""

    together: Barrier | None = None

    def PriceUsage(
        self, request: catalog_pb.PriceUsageRequest, _context: grpc.ServicerContext
    ) -> catalog_pb.PriceUsageResponse:
        if self.together is not None:
            self.together.wait(20)
        return catalog_pb.PriceUsageResponse(periods=[_cost(period) for period in request.periods])


def _cost(period: catalog_pb.PeriodUsage) -> catalog_pb.PeriodCost:
    return catalog_pb.PeriodCost(
        plan_id="by-request",
        plan_version=1,
        currency="INR",
        components=[
            catalog_pb.ComponentCost(
                component_id="requests", display_name="Requests", meter="requests", precise_amounts=used.quantities
            )
            for used in period.meters
            if used.meter == "requests"
        ],
    )


@pytest.fixture(scope="module")
def environment(environment: dict[str, str]) -> dict[str, str]:
    """The job prices once, before there is anything to price."""
    return {**environment, "METERSCOPE_USAGE_COST_SECONDS": "86400", "METERSCOPE_BILLING_ADDRESS": "127.0.0.1:1"}


@pytest.fixture
def prices() -> Prices:
    return Prices()  # type: ignore[abstract] # the other methods answer UNIMPLEMENTED


@pytest.fixture
def costs(
    prices: Prices, database: Database, migrated: Settings, sql: psycopg.Connection[tuple[object, ...]]
) -> Iterator[Costs]:
    ran = "SELECT succeeded_at FROM schedules WHERE name = 'price_usage' AND succeeded_at IS NOT NULL"
    eventually(lambda: sql.execute(ran).fetchone())
    server = grpc.server(ThreadPoolExecutor(4))
    catalog_grpc.add_CatalogServiceServicer_to_server(prices, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with open_channel(f"127.0.0.1:{port}", migrated.kit) as channel:
        meter = metrics.get_meter("tests")
        yield Costs(database, Outbox(database), Billing(channel), CostMetrics(meter), lambda: datetime.now(UTC))
    server.stop(None).wait()


@pytest.fixture
def wild(client: Client, database: Database) -> Callable[[], tuple[CustomerPeriod, CustomerPeriod]]:
    """A customer with 9 requests a day in the period before and 249 in a third of this one: above 2.5 times as many."""

    def wild() -> tuple[CustomerPeriod, CustomerPeriod]:
        today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        start = today - timedelta(days=10)
        customer = client.put_customer(periods=[(start - PERIOD, start), (start, start + PERIOD)])
        before = [event(customer, time=start - PERIOD + timedelta(days=day)) for day in range(30) for _ in range(9)]
        client.ingest(*before, *[event(customer, time=start) for _ in range(249)])
        # Rolled up.
        assert client.total(customer, "requests") == 30 * 9 + 249
        with database.autocommit() as conn:
            found = store.moved(conn, Place(0, 0), (0, start - PERIOD), 1_000)
        earlier, current = (each for each in found if each.customer_id == customer)
        return earlier, current

    return wild


def told(alerts: Alerts, of: CustomerPeriod) -> list[str]:
    mine = [each for each in alerts.raised.values() if each.customer_id == of.customer_id]
    return [f"{each.type} {each.data['cost']}" for each in mine]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_spike_is_told_once_whichever_period_is_priced_first(
    costs: Costs,
    wild: Callable[[], tuple[CustomerPeriod, CustomerPeriod]],
    alerts: Alerts,
    order: tuple[int, int],
) -> None:
    periods = wild()
    first, second = (periods[place] for place in order)
    assert costs.refresh([first]) == 1
    assert costs.refresh([second]) == 1
    eventually(lambda: told(alerts, first))
    assert costs.refresh(periods) == 0
    other = wild()
    costs.refresh(other)
    # What is told last is told behind all before.
    eventually(lambda: told(alerts, other[0]))
    assert told(alerts, first) == ["cost_spike 249"]


def test_a_spike_is_told_once_when_both_periods_are_priced_at_the_same_time(
    costs: Costs, prices: Prices, wild: Callable[[], tuple[CustomerPeriod, CustomerPeriod]], alerts: Alerts
) -> None:
    prices.together = Barrier(2)
    for _ in range(10):
        periods = wild()
        with ThreadPoolExecutor(2) as threads:
            list(threads.map(costs.refresh, [[each] for each in periods]))
        eventually(lambda: told(alerts, periods[0]))  # noqa: B023 - called at once
        assert told(alerts, periods[0]) == ["cost_spike 249"]
