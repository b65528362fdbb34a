"""State gauges: what is the case, shown by one process alone."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from billing_harness import Client, Clock, points, until
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from services.billing.__main__ import build_worker
from services.billing.metrics import Gauges
from services.billing.settings import Settings
from services.billing.usecases.statistics import Statistics
from services.billing.workers import COUNT_EVERY, ReadState
from services.kit.db import Database
from services.kit.leases import Lease

MAY, JUNE = "2026-04-30T18:30", "2026-05-31T18:30"


@contextmanager
def reading(database: Database) -> Iterator[InMemoryMetricReader]:
    """The loop of one worker, and what that worker would export."""
    reader, stop = InMemoryMetricReader(), threading.Event()
    lease = Lease(database, ReadState.name, COUNT_EVERY)
    gauges = Gauges(MeterProvider([reader]).get_meter("services.billing"), lease)
    thread = threading.Thread(target=ReadState(Statistics(database), gauges, lease).run, args=(stop,))
    thread.start()
    yield reader
    stop.set()
    thread.join()


@pytest.fixture
def billed(settings: Settings, client: Client, clock: Clock) -> None:
    """One customer on the plan `shown`, billed; one without a plan; and no worker any more."""
    worker = build_worker(settings, clock=clock)
    worker.start()
    client.customer("without a plan")
    client.subscribe(client.customer(), client.plan(plan_id="shown"), MAY)
    client.plan(plan_id="unused")
    client.bill(JUNE)
    worker.stop()


@pytest.mark.usefixtures("billed")
def test_one_worker_shows_customers_subscriptions_and_the_ledgers_imbalance(database: Database) -> None:
    with reading(database) as reader:
        shown = until(lambda: points(reader), lambda found: "billing.customers.total" in found)
        assert shown["billing.customers.total"] == {("pending",): 0, ("active",): 2, ("suspended",): 0, ("closed",): 0}
        assert shown["billing.active_subscriptions"] == {("shown",): 1}
        # A plan that nobody is on is shown too.
        assert shown["billing.tenants_per_plan"] == {("shown", "Web, in rupees"): 1, ("unused", "Web, in rupees"): 0}
        assert shown["billing.integrity.ledger_imbalance"] == {("INR",): 0.0}
        # Nobody else may show them meanwhile.
        assert not Lease(database, ReadState.name, COUNT_EVERY).acquire()
    assert "billing.customers.total" not in points(reader)
    with reading(database) as following:
        until(lambda: points(following), lambda found: "billing.customers.total" in found)
