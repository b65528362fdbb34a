"""The same thing asked for from several sides at once."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import grpc
import pytest
from billing_harness import Client, inr, reason, timestamp
from billing_peers import Peers
from eventually import eventually

from meterscope.billing.v1 import bill_run_service_pb2 as bill_runs_pb
from meterscope.billing.v1 import ledger_service_pb2
from services.kit.ids import new_id

pytestmark = pytest.mark.usefixtures("worker")

T = TypeVar("T")
SIDES = 6
MARCH, JUNE = "2026-02-28T18:30", "2026-05-31T18:30"


def at_once(act: Callable[[], T]) -> tuple[list[T], list[str]]:
    """What the sides got, and the reasons why others were refused."""

    def tried(_side: int) -> tuple[list[T], list[str]]:
        try:
            return [act()], []
        except grpc.RpcError as error:
            return [], [reason(error)]

    with ThreadPoolExecutor(SIDES) as threads:
        ends = list(threads.map(tried, range(SIDES)))
    return [got for gets, _ in ends for got in gets], [why for _, reasons in ends for why in reasons]


def test_bill_runs_at_once_bill_each_period_once(client: Client) -> None:
    plan = client.plan()
    customers = [client.customer() for _ in range(4)]
    for customer in customers:
        client.subscribe(customer, plan, MARCH)

    runs, refused = at_once(lambda: client.start_bill_run(JUNE))
    ended = [client.ended(run) for run in runs]

    assert refused == []
    # March, April and May of four customers.
    assert sum(run.due for run in ended) == sum(run.invoiced for run in ended) == 12
    invoices = [invoice for customer in customers for invoice in client.invoices_of(customer)]
    assert len({(invoice.customer_id, invoice.period.start_time.seconds) for invoice in invoices}) == 12
    assert len({invoice.number for invoice in invoices}) == len(invoices) == 12
    assert client.ledger.GetTrialBalance(ledger_service_pb2.GetTrialBalanceRequest()).balanced


def test_a_bill_run_is_started_once_by_its_request_id(client: Client) -> None:
    request = bill_runs_pb.StartBillRunRequest(as_of=timestamp(JUNE), request_id=new_id("req"))
    runs, refused = at_once(lambda: client.bill_runs.StartBillRun(request))
    assert refused == []
    assert len({run.id for run in runs}) == 1


def test_a_customer_gets_one_subscription_and_usage_hears_of_it_in_order(client: Client, peers: Peers) -> None:
    customer, plan = client.customer(), client.plan()
    made, refused = at_once(lambda: client.subscribe(customer, plan, MARCH))
    assert (len(made), refused) == (1, ["ALREADY_SUBSCRIBED"] * (SIDES - 1))
    told = eventually(lambda: [found for found in [peers.usage.told_of(customer.id)] if len(found) == 2])[0]
    assert [(request.revision, request.has_plan) for request in told] == [(1, False), (2, True)]


def test_payments_at_once_never_book_more_than_is_due(client: Client) -> None:
    customer = client.customer()
    client.subscribe(customer, client.plan(), "2026-04-30T18:30")
    client.bill(JUNE)
    (invoice,) = client.invoices_of(customer)
    paid, refused = at_once(lambda: client.pay(invoice, inr("499.00"), new_id("req")))
    assert (len(paid), refused) == (1, ["INVOICE_NOT_PAYABLE"] * (SIDES - 1))
    entries = client.ledger.ListEntries(ledger_service_pb2.ListEntriesRequest(invoice_id=invoice.id)).entries
    assert len([entry for entry in entries if entry.payment_id]) == 2
