"""Invoices as pages for people."""

import re
from html.parser import HTMLParser

import grpc
import pytest
from billing_harness import Client, inr, violations
from billing_peers import Peers, sealed

from meterscope.billing.v1 import invoice_service_pb2 as pb
from services.kit.ids import new_id

pytestmark = pytest.mark.usefixtures("worker")

MAY, JUNE = "2026-04-30T18:30", "2026-05-31T18:30"


class Text(HTMLParser):
    """The text of a page, and the tags that are in it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.words = ""
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [value for name, value in attrs if name in {"href", "src"} and value]

    def handle_data(self, data: str) -> None:
        self.words = re.sub(r"\s+", " ", f"{self.words} {data}")


@pytest.fixture(scope="module")
def invoice(client: Client, peers: Peers, worker: None) -> pb.Invoice:  # noqa: ARG001 - it bills
    customer = client.customer("Asha <script>alert(1)</script> & Sons")
    client.subscribe(customer, client.plan(), MAY)
    peers.usage.totals[customer.id] = [
        sealed("requests", "1482", events=1482, traces=["a" * 32]),
        sealed("bytes", "65259072", events=1482),
    ]
    client.bill(JUNE)
    return client.invoices_of(customer)[0]


def render(client: Client, invoice: pb.Invoice, form: str = "") -> Text:
    body = client.invoices.RenderInvoice(pb.RenderInvoiceRequest(invoice_id=invoice.id, format=form))
    assert body.content_type == "text/html; charset=utf-8"
    return Text(body.data.decode())


def test_a_page_shows_lines_tiers_and_totals(client: Client, invoice: pb.Invoice) -> None:
    words = render(client, invoice).words
    assert invoice.number in words
    # 4.00 + 6.00 + 1,082 * 20 / 1,000 = 31.64; with 499.00 and 0.55: 531.19
    for expected in (
        "DUE",
        "Base fee 1 499.00 499.00",
        "1,482 requests",
        "above 100 up to 200 100 40 4",
        "above 400 1,082 20 21.64",
        "65,259,072 By 8.5 per 1,000,000,000 0.55",
        "Subtotal 531.19",
        "Total INR 531.19",
    ):
        assert expected in words


def test_times_are_the_customers(client: Client, invoice: pb.Invoice) -> None:
    assert "1 May 2026, 00:00 until 1 June 2026, 00:00" in render(client, invoice).words


def test_lines_lead_to_their_traces(client: Client, invoice: pb.Invoice) -> None:
    page = render(client, invoice)
    assert f"http://traces.example/trace/{'a' * 32}" in page.links
    assert "a" * 32 in page.words


def test_names_are_text_and_never_markup(client: Client, invoice: pb.Invoice) -> None:
    page = render(client, invoice)
    assert "Asha <script>alert(1)</script> & Sons" in page.words
    assert "script" not in page.tags


def test_a_page_needs_nothing_else(client: Client, invoice: pb.Invoice) -> None:
    page = render(client, invoice, "html")
    assert not page.tags & {"script", "link", "img", "iframe"}
    assert all(link.startswith("http://traces.example/trace/") for link in page.links)


def test_a_paid_invoice_says_so(client: Client) -> None:
    customer = client.customer()
    client.subscribe(customer, client.plan(), MAY)
    client.bill(JUNE)
    invoice = client.pay(client.invoices_of(customer)[0], inr("499.00"), new_id("req"))
    words = render(client, invoice).words
    assert "PAID" in words
    assert f"Paid 10 June 2026, 17:30 {invoice.payment_id}" in words
    assert "Amount due INR 0.00" in words


def test_other_formats_are_refused(client: Client, invoice: pb.Invoice) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        render(client, invoice, "docx")
    assert set(violations(refused.value)) == {"format"}


def test_an_unknown_invoice_is_not_found(client: Client) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        render(client, pb.Invoice(id="inv_nowhere"))
    assert refused.value.code() == grpc.StatusCode.NOT_FOUND
