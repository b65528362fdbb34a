"""Payments of invoices: recorded once, posted, told."""

from decimal import Decimal

import grpc
import pytest
from billing_harness import Client, amount, inr, reason, violations
from billing_peers import Peers
from eventually import eventually
from google.type import money_pb2

from meterscope.alerts.v1 import alert_service_pb2
from meterscope.billing.v1 import invoice_service_pb2 as pb
from meterscope.billing.v1 import ledger_service_pb2
from services.kit.ids import new_id

pytestmark = pytest.mark.usefixtures("worker")

MAY, JUNE = "2026-04-30T18:30", "2026-05-31T18:30"


@pytest.fixture
def invoice(client: Client) -> pb.Invoice:
    """An invoice over 499.00 rupees."""
    customer = client.customer("Ravi & Sons")
    client.subscribe(customer, client.plan(), MAY)
    client.bill(JUNE)
    return client.invoices_of(customer)[0]


def entries(client: Client, invoice: pb.Invoice) -> dict[str, str]:
    found = client.ledger.ListEntries(ledger_service_pb2.ListEntriesRequest(invoice_id=invoice.id)).entries
    return {f"{entry.account_id} {entry.payment_id}".strip(): str(amount(entry.amount)) for entry in found}


def test_a_payment_makes_the_invoice_paid(client: Client, invoice: pb.Invoice) -> None:
    paid = client.pay(invoice, inr("499.00"), new_id("req"))
    assert paid.state == pb.INVOICE_STATE_PAID
    assert (str(amount(paid.amount_due)), paid.payment_id) == ("0", f"pay_of_{invoice.id}")
    assert paid.HasField("paid_time")
    assert client.invoice(invoice.id) == paid


def test_a_payment_moves_cash_and_clears_the_receivable(client: Client, invoice: pb.Invoice) -> None:
    client.pay(invoice, inr("499.00"), new_id("req"))
    payment = f"pay_of_{invoice.id}"
    assert entries(client, invoice) == {
        f"receivable:{invoice.customer_id}": "499",
        "revenue:subscription": "-499",
        "revenue:usage": "0",
        f"cash:sandbox {payment}": "499",
        f"receivable:{invoice.customer_id} {payment}": "-499",
    }


def test_recorded_twice_it_counts_once(client: Client, invoice: pb.Invoice) -> None:
    request_id = new_id("req")
    first = client.pay(invoice, inr("499.00"), request_id)
    assert client.pay(invoice, inr("499.00"), request_id) == first
    assert len(entries(client, invoice)) == 5


def test_a_second_payment_of_a_paid_invoice_is_refused(client: Client, invoice: pb.Invoice) -> None:
    client.pay(invoice, inr("499.00"), new_id("req"))
    with pytest.raises(grpc.RpcError) as refused:
        client.pay(invoice, inr("499.00"), new_id("req"))
    assert refused.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert reason(refused.value) == "INVOICE_NOT_PAYABLE"


def test_parts_pay_the_whole(client: Client, invoice: pb.Invoice) -> None:
    partly = client.pay(invoice, inr("99.50"), new_id("req"))
    assert (partly.state, amount(partly.amount_due)) == (pb.INVOICE_STATE_FINALIZED, Decimal("399.5"))
    assert client.pay(invoice, inr("399.50"), new_id("req")).state == pb.INVOICE_STATE_PAID


def test_alerts_hears_of_a_paid_invoice_once(client: Client, peers: Peers, invoice: pb.Invoice) -> None:
    client.pay(invoice, inr("499.00"), new_id("req"))
    (signal,) = eventually(lambda: peers.alerts.of(f"invoice_paid:{invoice.id}"))
    assert (signal.type, signal.severity) == ("invoice_paid", alert_service_pb2.SEVERITY_INFO)
    assert signal.message == f"Ravi & Sons paid INR 499.00 for invoice {invoice.number}."
    assert (signal.data["amount"], signal.data["currency"]) == ("499.00", "INR")
    assert (signal.customer_id, signal.service) == (invoice.customer_id, "billing")
    assert signal.request_id.startswith("obx_")


@pytest.mark.parametrize(
    ("paid", "complaint"),
    [
        (inr("499.01"), "more than the 499.00 that is due"),
        (inr("0"), "not above 0"),
        (inr("-1"), "not above 0"),
        (money_pb2.Money(currency_code="USD", units=499), "the invoice is in INR"),
        (money_pb2.Money(currency_code="INR", units=499, nanos=1), "finer than INR allows"),
    ],
)
def test_a_payment_must_fit_the_invoice(
    client: Client, invoice: pb.Invoice, paid: money_pb2.Money, complaint: str
) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        client.pay(invoice, paid, new_id("req"))
    assert complaint in violations(refused.value)["amount"]
    assert client.invoice(invoice.id).amount_due == invoice.amount_due


@pytest.mark.parametrize("field", ["request_id", "invoice_id", "payment_id", "provider"])
def test_a_payment_says_what_it_pays_and_where_the_money_is(client: Client, field: str) -> None:
    request = pb.RecordPaymentRequest(
        invoice_id="inv_1", payment_id="pay_1", amount=inr("1"), provider="sandbox", request_id="r"
    )
    request.ClearField(field)  # type: ignore[arg-type] # one of its fields
    with pytest.raises(grpc.RpcError) as refused:
        client.invoices.RecordPayment(request)
    assert set(violations(refused.value)) == {field}


@pytest.mark.parametrize("field", ["payment_id", "provider"])
def test_a_name_that_no_account_can_have_is_refused(client: Client, invoice: pb.Invoice, field: str) -> None:
    names = {"payment_id": "pay_1", "provider": "sandbox", field: "x" * 3_000}
    request = pb.RecordPaymentRequest(invoice_id=invoice.id, amount=inr("1"), request_id=new_id("req"), **names)
    with pytest.raises(grpc.RpcError) as refused:
        client.invoices.RecordPayment(request)
    assert violations(refused.value) == {field: "has 3000 bytes; 1 to 256 are allowed"}


def test_what_was_paid_otherwise_is_not_collected_again(client: Client, peers: Peers) -> None:
    customer = client.customer()
    peers.payments.without_method.add(customer.id)
    client.subscribe(customer, client.plan(), MAY)
    client.bill(JUNE)
    (invoice,) = client.invoices_of(customer)
    client.pay(invoice, inr("99.50"), new_id("req"))
    peers.payments.without_method.remove(customer.id)
    (request,) = eventually(lambda: peers.payments.of(invoice.id))
    # 499.00 less 99.50.
    assert amount(request.payment.amount) == Decimal("399.5")


def test_a_payment_of_an_unknown_invoice_is_not_found(client: Client) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        client.pay(pb.Invoice(id="inv_nowhere"), inr("1"), new_id("req"))
    assert reason(refused.value) == "INVOICE_NOT_FOUND"


def test_invoices_are_listed_by_state_newest_first(client: Client, invoice: pb.Invoice) -> None:
    paid = client.pay(invoice, inr("499.00"), new_id("req"))
    found = client.invoices.ListInvoices(
        pb.ListInvoicesRequest(customer_id=invoice.customer_id, state=pb.INVOICE_STATE_PAID)
    )
    assert list(found.invoices) == [paid]
    due = pb.ListInvoicesRequest(customer_id=invoice.customer_id, state=pb.INVOICE_STATE_FINALIZED)
    assert list(client.invoices.ListInvoices(due).invoices) == []
    of_run = pb.ListInvoicesRequest(bill_run_id=invoice.bill_run_id)
    assert paid in client.invoices.ListInvoices(of_run).invoices


def test_pages_of_invoices_neither_skip_nor_repeat(client: Client) -> None:
    customer = client.customer()
    client.subscribe(customer, client.plan(), "2026-01-31T18:30")
    client.bill(JUNE)
    everything = [invoice.id for invoice in client.invoices_of(customer)]
    seen: list[str] = []
    token = ""
    for _ in range(4):
        page = client.invoices.ListInvoices(
            pb.ListInvoicesRequest(customer_id=customer.id, page_size=1, page_token=token)
        )
        seen += [invoice.id for invoice in page.invoices]
        token = page.next_page_token
    assert seen == everything
    assert (len(everything), token) == (4, "")


def test_a_page_token_belongs_to_its_filters(client: Client) -> None:
    first = client.invoices.ListInvoices(pb.ListInvoicesRequest(page_size=1))
    with pytest.raises(grpc.RpcError) as refused:
        client.invoices.ListInvoices(pb.ListInvoicesRequest(customer_id="cus_x", page_token=first.next_page_token))
    assert set(violations(refused.value)) == {"page_token"}
