"""Explaining a line: its price computed again, its events, its traces."""

import re
from decimal import Decimal

import grpc
import pytest
from billing_harness import Client, amount, reason, timestamp
from billing_peers import Peers, sealed
from google.type import decimal_pb2

from meterscope.billing.v1 import invoice_service_pb2 as pb
from meterscope.usage.v1 import event_service_pb2, usage_service_pb2

pytestmark = pytest.mark.usefixtures("worker")

MAY, JUNE = "2026-04-30T18:30", "2026-05-31T18:30"


def event(number: int, time: str, size: str | None = "100") -> event_service_pb2.Event:
    quantities = {} if size is None else {"bytes": decimal_pb2.Decimal(value=size)}
    return event_service_pb2.Event(
        id=f"e{number}",
        source="accesslog/web-1",
        type="http.request",
        time=timestamp(time),
        quantities=quantities,
        trace_id=f"{number:032x}",
    )


@pytest.fixture(scope="module")
def invoice(client: Client, peers: Peers, worker: None) -> pb.Invoice:  # noqa: ARG001 - it bills
    customer = client.customer()
    client.subscribe(customer, client.plan(plan_id="explained"), MAY)
    peers.usage.totals[customer.id] = [
        sealed("requests", "482", events=482, traces=["a" * 32]),
        sealed("bytes", "65259072", events=482),
    ]
    peers.usage.listed[customer.id] = [
        event(1, MAY),
        event(2, "2026-05-10T00:00", "250"),
        event(3, "2026-05-31T18:29:59", None),
        event(4, JUNE),
    ]
    client.bill(JUNE)
    return client.invoices_of(customer)[0]


def recomputed(steps: list[str]) -> Decimal:
    """The last number of the last step."""
    return Decimal(re.findall(r"-?\d+(?:\.\d+)?", steps[-1])[-1])


def test_tiers_are_computed_again_step_by_step(client: Client, invoice: pb.Invoice) -> None:
    explanation = client.explain(invoice, "2")
    begins, ends = "2026-04-30T18:30:00+00:00", "2026-05-31T18:30:00+00:00"
    seal = f"seal_{timestamp(JUNE).seconds}"
    assert list(explanation.steps) == [
        f"Meter requests was sealed at 482 requests by 482 events from {begins} until {ends} (seal {seal}).",
        "The first 100 are included: 382 are charged.",
        "Units above 100 up to 200: 100 × 40 ÷ 1000 = 4.",
        "Units above 200 up to 400: 200 × 30 ÷ 1000 = 6.",
        "Units above 400: 82 × 20 ÷ 1000 = 1.64.",
        "Together: 4 + 6 + 1.64 = 11.64.",
        "11.64 is rounded once, half away from zero, to the 2 decimals of INR (ISO 4217): INR 11.64.",
    ]
    assert explanation.line == invoice.lines[1]
    assert (explanation.plan_id, explanation.plan_version) == ("explained", 1)
    assert explanation.seal_id == seal


def test_the_steps_of_every_line_arrive_at_its_amount(client: Client, invoice: pb.Invoice) -> None:
    for line in invoice.lines:
        assert recomputed(list(client.explain(invoice, line.id).steps)) == amount(line.amount)


def test_a_price_per_unit_names_what_was_rounded(client: Client, invoice: pb.Invoice) -> None:
    steps = client.explain(invoice, "3").steps
    assert steps[2] == "65259072 × 8.5 ÷ 1000000000 = 0.554702112."
    assert steps[3].startswith("0.554702112 is rounded once")


def test_a_fixed_fee_is_explained_without_events(client: Client, invoice: pb.Invoice) -> None:
    explanation = client.explain(invoice, "1")
    assert explanation.steps[1] == "The fee is INR 499.00."
    assert list(explanation.events) == []
    assert explanation.seal_id == ""


def test_events_of_the_period_are_listed_with_what_each_adds(client: Client, invoice: pb.Invoice) -> None:
    counted = client.explain(invoice, "2")
    assert [(found.id, found.quantity.value) for found in counted.events] == [("e1", "1"), ("e2", "1"), ("e3", "1")]
    summed = client.explain(invoice, "3")
    assert [(found.id, found.quantity.value) for found in summed.events] == [("e1", "100"), ("e2", "250"), ("e3", "0")]
    assert counted.events[0].trace_id == f"{1:032x}"
    assert counted.events[0].source == "accesslog/web-1"


def test_events_come_in_pages(client: Client, invoice: pb.Invoice) -> None:
    first = client.explain(invoice, "2", page_size=2)
    second = client.explain(invoice, "2", page_size=2, page_token=first.next_page_token)
    assert [[found.id for found in page.events] for page in (first, second)] == [["e1", "e2"], ["e3"]]
    assert second.next_page_token == ""


def test_sample_traces_are_linked_to_the_trace_store(client: Client, invoice: pb.Invoice) -> None:
    assert list(client.explain(invoice, "2").trace_links) == [f"http://traces.example/trace/{'a' * 32}"]


def test_an_adjustment_is_explained_by_the_whole_less_what_was_charged(client: Client, peers: Peers) -> None:
    customer = client.customer()
    client.subscribe(customer, client.plan(plan_id="adjusted"), "2026-03-31T18:30")
    peers.usage.totals[customer.id] = [sealed("requests", "190", events=190)]
    client.bill(MAY)
    total = sealed("requests", "210", events=210)
    peers.usage.late[customer.id] = [usage_service_pb2.LateUsage(period_end_time=timestamp(MAY), totals=[total])]
    client.bill(JUNE)
    adjusted = client.invoices_of(customer)[0]
    explanation = client.explain(adjusted, "4")
    assert explanation.steps[0].startswith("Meter requests stands at 210 requests for 2026-03-31T18:30:00+00:00")
    assert "4.3 less INR 3.60 that earlier invoices charged for this period leaves 0.7." in explanation.steps
    assert recomputed(list(explanation.steps)) == amount(adjusted.lines[3].amount) == Decimal("0.70")
    assert explanation.period.end_time == timestamp(MAY)


def test_an_unknown_line_is_not_found(client: Client, invoice: pb.Invoice) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        client.explain(invoice, "9")
    assert refused.value.code() == grpc.StatusCode.NOT_FOUND
    assert reason(refused.value) == "INVOICE_LINE_NOT_FOUND"
