"""Bill runs: each due period becomes one invoice, whatever is run twice, fails or dies."""

from decimal import Decimal

import grpc
import pytest
import sqlalchemy as sa
from billing_harness import Client, Clock, amount, number, reason, timestamp, until, utc, violations
from billing_peers import Peers, sealed
from eventually import eventually

from meterscope.billing.v1 import bill_run_service_pb2 as pb
from meterscope.billing.v1 import invoice_service_pb2, subscription_service_pb2
from services.billing.usecases.bill_runs import BillRuns
from services.kit.db import Database
from services.kit.errors import AlreadyExists, FailedPrecondition, ServiceError
from services.kit.outbox import Outbox
from services.kit.tables import outbox

pytestmark = pytest.mark.usefixtures("worker")

MAY = "2026-04-30T18:30"  # midnight of 1 May in Kolkata
JUNE = "2026-05-31T18:30"


def test_a_closed_month_becomes_an_invoice(client: Client, peers: Peers) -> None:
    customer = client.customer()
    subscription = client.subscribe(customer, client.plan(), MAY)
    peers.usage.totals[customer.id] = [
        sealed("requests", "482", events=482, traces=["a" * 32, "b" * 32]),
        sealed("bytes", "65259072", events=482, traces=["a" * 32]),
    ]
    run = client.bill(JUNE)
    assert (run.state, run.due, run.invoiced, run.failed) == (pb.BILL_RUN_STATE_SUCCEEDED, 1, 1, 0)
    assert run.complete_time == timestamp("2026-06-10T12:00")

    (invoice,) = client.invoices_of(customer)
    assert invoice.state == invoice_service_pb2.INVOICE_STATE_FINALIZED
    assert (invoice.subscription_id, invoice.bill_run_id) == (subscription.id, run.id)
    assert (invoice.period.start_time, invoice.period.end_time) == (timestamp(MAY), timestamp(JUNE))
    assert invoice.customer_display_name == "Asha Traders"
    # Requests: 100 * 40 / 1,000 + 200 * 30 / 1,000 + 82 * 20 / 1,000 = 11.64
    # Traffic: 65,259,072 * 8.50 / 10^9 = 0.554702112
    assert [str(amount(line.amount)) for line in invoice.lines] == ["499", "11.64", "0.55"]
    assert number(invoice.lines[2].precise_amount).as_tuple().exponent == -9
    # 499.00 + 11.64 + 0.55
    assert str(amount(invoice.total)) == "511.19"
    assert invoice.total == invoice.amount_due == invoice.subtotal
    requests = invoice.lines[1]
    assert (requests.id, requests.meter, requests.quantity.value, requests.unit) == ("2", "requests", "482", "requests")
    assert requests.event_count == 482
    assert list(requests.sample_trace_ids) == ["a" * 32, "b" * 32]
    assert [tier.quantity.value for tier in requests.tiers] == ["100", "200", "82"]
    found = client.subscriptions.GetSubscription(
        subscription_service_pb2.GetSubscriptionRequest(subscription_id=subscription.id)
    )
    assert found.current_period.start_time == timestamp(JUNE)


def test_the_invoice_is_handed_to_payments_once(client: Client, peers: Peers) -> None:
    customer = client.customer()
    client.subscribe(customer, client.plan(), MAY)
    client.bill(JUNE)
    (invoice,) = client.invoices_of(customer)
    (asked,) = eventually(lambda: peers.payments.of(invoice.id))
    assert (asked.payment.customer_id, amount(asked.payment.amount)) == (customer.id, Decimal(499))
    assert asked.request_id.startswith("obx_")
    named = until(lambda: client.invoice(invoice.id), lambda found: bool(found.payment_id))
    assert named.payment_id == f"pay_of_{invoice.id}"


def test_an_invoice_waits_for_a_payment_method_and_says_so(client: Client, peers: Peers) -> None:
    customer = client.customer("Nobody's Card")
    peers.payments.without_method.add(customer.id)
    client.subscribe(customer, client.plan(), MAY)
    client.bill(JUNE)
    (invoice,) = client.invoices_of(customer)
    (signal, *_) = eventually(lambda: peers.alerts.of(f"payment_method_missing:{invoice.id}"))
    assert signal.action_required
    assert "Nobody's Card" in signal.message
    peers.payments.without_method.discard(customer.id)
    assert len(eventually(lambda: peers.payments.of(invoice.id))) == 1


@pytest.mark.parametrize(
    "refusal",
    [
        FailedPrecondition("has a payment", reason="INVOICE_ALREADY_COLLECTED"),
        # What was due when it was asked first, before a part was paid otherwise.
        AlreadyExists("was used for another amount", reason="REQUEST_ID_REUSED"),
    ],
)
def test_an_invoice_that_is_collected_already_is_left_alone(
    client: Client, peers: Peers, database: Database, refusal: ServiceError
) -> None:
    customer = client.customer()
    peers.payments.collected_elsewhere[customer.id] = refusal
    client.subscribe(customer, client.plan(), MAY)
    client.bill(JUNE)
    (invoice,) = client.invoices_of(customer)
    done = sa.select(outbox.c.payload["invoice_id"].astext).where(
        outbox.c.job == "collect_invoice", outbox.c.state == "DONE"
    )

    def collected() -> list[str]:
        with database.transaction() as conn:
            return list(conn.execute(done).scalars())

    until(collected, lambda invoices: invoice.id in invoices)
    assert client.invoice(invoice.id).state == invoice_service_pb2.INVOICE_STATE_FINALIZED
    assert [request.payment.invoice_id for request in peers.payments.refused].count(invoice.id) == 1


def test_a_second_run_over_the_same_periods_makes_nothing(client: Client) -> None:
    customer = client.customer()
    client.subscribe(customer, client.plan(), MAY)
    client.bill(JUNE)
    again = client.bill(JUNE)
    assert (again.state, again.due, again.invoiced) == (pb.BILL_RUN_STATE_SUCCEEDED, 0, 0)
    assert again.HasField("complete_time")
    assert len(client.invoices_of(customer)) == 1


def test_two_runs_at_once_make_one_invoice(client: Client) -> None:
    customer = client.customer()
    client.subscribe(customer, client.plan(), MAY)
    runs = [client.start_bill_run(JUNE) for _ in range(2)]
    ended = [client.ended(run) for run in runs]
    assert sorted(run.due for run in ended) == [0, 1]
    assert len(client.invoices_of(customer)) == 1


def test_a_repeated_start_gets_the_first_run(client: Client) -> None:
    request = pb.StartBillRunRequest(as_of=timestamp(JUNE), request_id="run-once")
    assert client.bill_runs.StartBillRun(request) == client.bill_runs.StartBillRun(request)


def test_months_that_are_due_are_billed_in_their_order(client: Client, peers: Peers) -> None:
    customer = client.customer()
    client.subscribe(customer, client.plan(), "2026-02-28T18:30")
    run = client.bill(JUNE)
    assert run.due == run.invoiced == 3
    ends = [request.end_time for request in peers.usage.seals if request.customer_id == customer.id]
    assert ends == [timestamp(text) for text in ("2026-03-31T18:30", "2026-04-30T18:30", "2026-05-31T18:30")]
    # Newest first.
    assert [invoice.period.end_time for invoice in client.invoices_of(customer)] == ends[::-1]


def test_a_period_that_has_not_ended_is_not_billed(client: Client) -> None:
    customer = client.customer()
    client.subscribe(customer, client.plan(), "2026-05-01T00:00")
    client.bill("2026-05-31T23:59:59")
    assert client.invoices_of(customer) == []


def test_a_run_over_many_subscriptions_is_planned_slice_by_slice(
    client: Client, database: Database, clock: Clock
) -> None:
    plan = client.plan()
    customers = [client.customer(f"slice {index}") for index in range(5)]
    for customer in customers:
        client.subscribe(customer, plan, MAY)
    bill_runs = BillRuns(database, Outbox(database), clock, slice_size=2)
    started = bill_runs.start(pb.StartBillRunRequest(as_of=timestamp(JUNE), request_id="sliced"))
    assert (started.state, started.due) == (pb.BILL_RUN_STATE_RUNNING, 2)
    run = client.ended(started)
    assert (run.state, run.due, run.invoiced) == (pb.BILL_RUN_STATE_SUCCEEDED, 5, 5)
    assert [len(client.invoices_of(customer)) for customer in customers] == [1] * 5


def test_one_failure_leaves_the_others_billed_and_is_named_and_billed_by_the_next_run(
    client: Client, peers: Peers
) -> None:
    plan = client.plan()
    failing, fine = client.customer("failing"), client.customer("fine")
    subscriptions = [client.subscribe(customer, plan, "2026-03-31T18:30") for customer in (failing, fine)]
    peers.usage.failing.add(failing.id)
    run = client.bill(JUNE)
    assert (run.state, run.due, run.invoiced, run.failed) == (pb.BILL_RUN_STATE_PARTLY_FAILED, 4, 2, 2)
    assert len(client.invoices_of(fine)) == 2
    assert client.invoices_of(failing) == []
    april, may = run.failures
    assert (april.customer_id, april.subscription_id) == (failing.id, subscriptions[0].id)
    assert "usage answered NOT_FOUND: there is no customer" in april.message
    # May is not sealed before April is: the events of April would be in its totals.
    assert "2026-04-30T18:30:00+00:00 is not billed yet" in may.message

    peers.usage.failing.discard(failing.id)
    mended = client.bill(JUNE)
    assert (mended.state, mended.invoiced) == (pb.BILL_RUN_STATE_SUCCEEDED, 2)
    assert len(client.invoices_of(failing)) == 2
    assert len(client.invoices_of(fine)) == 2


def test_nothing_to_pay_is_paid_at_once_and_leaves_its_trail(client: Client, peers: Peers) -> None:
    customer = client.customer()
    free = {"id": "c", "display_name": "Requests", "per_unit": {"meter": "requests", "unit_price": {"value": "0"}}}
    client.subscribe(customer, client.plan({"components": [free]}), MAY)
    peers.usage.totals[customer.id] = [sealed("requests", "7", events=7)]
    client.bill(JUNE)
    (invoice,) = client.invoices_of(customer)
    assert invoice.state == invoice_service_pb2.INVOICE_STATE_PAID
    assert invoice.number
    assert invoice.paid_time == invoice.finalize_time
    assert invoice.lines[0].event_count == 7
    assert amount(invoice.amount_due) == 0
    assert peers.payments.of(invoice.id) == []


def test_usage_that_was_not_there_makes_a_line_of_zero(client: Client) -> None:
    customer = client.customer()
    client.subscribe(customer, client.plan(), MAY)
    client.bill(JUNE)
    (invoice,) = client.invoices_of(customer)
    assert [line.quantity.value for line in invoice.lines] == ["1", "0", "0"]
    assert [str(amount(line.amount)) for line in invoice.lines] == ["499", "0", "0"]


def test_numbers_follow_each_other_without_a_gap(client: Client) -> None:
    plan = client.plan()
    customers = [client.customer(f"number {index}") for index in range(24)]
    for customer in customers:
        client.subscribe(customer, plan, MAY)
    before = last_number(client)
    client.bill(JUNE)
    numbers = sorted(client.invoices_of(customer)[0].number for customer in customers)
    # 10 June 2026 is in India's fiscal year 2026-27.
    assert numbers == [f"INV-2627-{before + index:06d}" for index in range(1, 25)]


def last_number(client: Client) -> int:
    invoices = client.invoices.ListInvoices(invoice_service_pb2.ListInvoicesRequest(page_size=1000)).invoices
    return max((int(invoice.number.rpartition("-")[2]) for invoice in invoices), default=0)


def test_amounts_too_large_to_pay_fail_the_period(client: Client, peers: Peers) -> None:
    customer = client.customer()
    dear = {"id": "c", "display_name": "Gold", "per_unit": {"meter": "requests", "unit_price": {"value": "1e15"}}}
    client.subscribe(customer, client.plan({"components": [dear]}), MAY)
    peers.usage.totals[customer.id] = [sealed("requests", "2")]
    run = client.bill(JUNE)
    assert "look at the plan's unit prices" in run.failures[0].message
    peers.usage.totals[customer.id] = [sealed("requests", "1")]
    assert client.bill(JUNE).failed == 0


def test_a_run_cannot_be_ahead_of_time(client: Client) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        client.start_bill_run("2026-06-10T12:00:01")
    assert set(violations(refused.value)) == {"as_of"}


def test_a_run_needs_a_request_id(client: Client) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        client.bill_runs.StartBillRun(pb.StartBillRunRequest())
    assert set(violations(refused.value)) == {"request_id"}


def test_an_unknown_run_is_not_found(client: Client) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        client.bill_run("run_nowhere")
    assert reason(refused.value) == "BILL_RUN_NOT_FOUND"


def test_runs_are_listed_newest_first(client: Client) -> None:
    made = [client.start_bill_run(JUNE).id for _ in range(3)]
    first = client.bill_runs.ListBillRuns(pb.ListBillRunsRequest(page_size=2))
    second = client.bill_runs.ListBillRuns(pb.ListBillRunsRequest(page_size=2, page_token=first.next_page_token))
    assert [run.id for run in (*first.bill_runs, *second.bill_runs)][:3] == made[::-1]


def test_without_an_instant_all_that_has_ended_is_billed(client: Client, clock: Clock) -> None:
    customer = client.customer()
    client.subscribe(customer, client.plan(), MAY)
    run = client.bill_runs.StartBillRun(pb.StartBillRunRequest(request_id="now"))
    assert run.as_of == timestamp("2026-06-10T12:00")
    assert clock.now == utc("2026-06-10T12:00")
    eventually(lambda: client.invoices_of(customer))
