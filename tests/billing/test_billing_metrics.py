"""The instruments say what the telemetry catalogue says they do."""

from collections.abc import Iterator

import pytest
from billing_harness import Client, Clock, inr, points, until
from billing_peers import Peers, sealed
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from services.billing.__main__ import build_server, build_worker
from services.billing.settings import Settings
from services.kit.channel import open_channel
from services.kit.ids import new_id

MAY, JUNE = "2026-04-30T18:30", "2026-05-31T18:30"


@pytest.fixture(scope="module")
def reader() -> InMemoryMetricReader:
    return InMemoryMetricReader()


@pytest.fixture(scope="module")
def client(settings: Settings, clock: Clock, reader: InMemoryMetricReader) -> Iterator[Client]:
    """A client of a server and a worker whose instruments are read here."""
    meter = MeterProvider([reader]).get_meter("services.billing")
    server = build_server(settings, clock=clock, meter=meter)
    port = server.start()
    worker = build_worker(settings, clock=clock, meter=meter)
    worker.start()
    with open_channel(f"127.0.0.1:{port}", settings.kit) as channel:
        yield Client(channel)
    worker.stop()
    server.stop()


@pytest.mark.usefixtures("client")
def test_counters_start_at_zero_so_that_the_first_failure_is_a_rate(reader: InMemoryMetricReader) -> None:
    found = points(reader)
    assert found["billing.invoices.generated"] == {("subscription", "success"): 0, ("subscription", "failed"): 0}
    assert found["billing.customers.created"] == {(): 0}


def test_what_happens_is_counted(client: Client, peers: Peers, reader: InMemoryMetricReader) -> None:
    plan = client.plan(plan_id="counted")
    billed, failing = client.customer(), client.customer()
    for customer in (billed, failing):
        client.subscribe(customer, plan, MAY)
    peers.usage.totals[billed.id] = [sealed("requests", "400", events=400)]
    peers.usage.failing.add(failing.id)
    client.bill(JUNE)
    client.pay(client.invoices_of(billed)[0], inr("509.00"), new_id("req"))
    found = until(
        lambda: points(reader), lambda found: found["billing.invoices.generated"]["subscription", "success"] == 1
    )
    assert found["billing.customers.created"] == {(): 2}
    assert found["billing.invoices.generated"] == {("subscription", "success"): 1, ("subscription", "failed"): 1}
    assert found["billing.invoice.generation.duration"] == {("success",): 1, ("failed",): 1}
    assert found["billing.revenue"] == {("subscription", "INR"): 499.0, ("usage", "INR"): 10.0}
