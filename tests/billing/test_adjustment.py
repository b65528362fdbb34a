"""Late usage: what arrives after a period was billed is charged on the next invoice, at what it would have cost."""

from decimal import Decimal

import pytest
from billing_harness import Client, amount, number, timestamp
from billing_peers import Peers, sealed
from google.type import decimal_pb2

from meterscope.billing.v1 import customer_service_pb2, invoice_service_pb2
from meterscope.usage.v1 import usage_service_pb2

pytestmark = pytest.mark.usefixtures("worker")

APRIL, MAY, JUNE = "2026-03-31T18:30", "2026-04-30T18:30", "2026-05-31T18:30"


def late(end: str, *totals: usage_service_pb2.SealedTotal) -> usage_service_pb2.LateUsage:
    return usage_service_pb2.LateUsage(period_end_time=timestamp(end), totals=totals)


def adjustments(invoice: invoice_service_pb2.Invoice) -> list[invoice_service_pb2.InvoiceLine]:
    return [line for line in invoice.lines if line.kind == invoice_service_pb2.INVOICE_LINE_KIND_ADJUSTMENT]


def billed(client: Client, peers: Peers, april: str) -> customer_service_pb2.Customer:
    """A customer whose April is billed with so many requests."""
    customer = client.customer()
    client.subscribe(customer, client.plan(), APRIL)
    peers.usage.totals[customer.id] = [sealed("requests", april, events=int(april))]
    client.bill(MAY)
    peers.usage.totals[customer.id] = []
    return customer


def test_late_usage_becomes_an_adjustment_line(client: Client, peers: Peers) -> None:
    customer = billed(client, peers, april="190")
    # In time, 210 requests had cost 100 * 40 / 1,000 + 10 * 30 / 1,000 = 4.30; 190 were billed at 3.60.
    peers.usage.late[customer.id] = [late(MAY, sealed("requests", "210", events=210, traces=["c" * 32]))]
    client.bill(JUNE)
    invoice = client.invoices_of(customer)[0]
    (line,) = adjustments(invoice)
    assert str(amount(line.amount)) == "0.7"
    assert number(line.precise_amount) == Decimal("0.70")
    assert (line.id, line.meter, line.description) == ("4", "requests", "Requests")
    assert (line.quantity.value, line.event_count, list(line.sample_trace_ids)) == ("20", 20, ["c" * 32])
    assert str(amount(invoice.total)) == "499.7"


def test_an_adjustment_is_charged_once_and_grows_with_later_usage(client: Client, peers: Peers) -> None:
    customer = client.customer()
    client.subscribe(customer, client.plan(), "2026-02-28T18:30")
    peers.usage.totals[customer.id] = [sealed("requests", "300", events=300)]
    client.bill(APRIL)
    peers.usage.late[customer.id] = [late(APRIL, sealed("requests", "400", events=400))]
    client.bill(MAY)
    (first,) = adjustments(client.invoices_of(customer)[0])
    assert str(amount(first.amount)) == "3"  # 10.00 - 7.00
    # Told again with the next seal, with 50 more: 10.00 + 50 * 20 / 1,000 - 7.00 - 3.00
    peers.usage.late[customer.id] = [late(APRIL, sealed("requests", "450", events=450))]
    client.bill(JUNE)
    (second,) = adjustments(client.invoices_of(customer)[0])
    assert (str(amount(second.amount)), second.quantity.value, second.event_count) == ("1", "50", 50)


def test_late_usage_that_was_billed_makes_no_further_line(client: Client, peers: Peers) -> None:
    customer = client.customer()
    client.subscribe(customer, client.plan(), "2026-02-28T18:30")
    client.bill(APRIL)
    peers.usage.late[customer.id] = [late(APRIL, sealed("requests", "200", events=200))]
    client.bill(MAY)
    client.bill(JUNE)
    june, may, april = client.invoices_of(customer)
    assert [len(adjustments(invoice)) for invoice in (june, may, april)] == [0, 1, 0]


def test_late_usage_within_the_included_units_is_shown_at_zero(client: Client, peers: Peers) -> None:
    customer = billed(client, peers, april="10")
    peers.usage.late[customer.id] = [late(MAY, sealed("requests", "30", events=30))]
    client.bill(JUNE)
    (line,) = adjustments(client.invoices_of(customer)[0])
    assert (str(amount(line.amount)), line.quantity.value) == ("0", "20")


def test_a_late_total_that_did_not_change_adjusts_by_nothing(client: Client, peers: Peers) -> None:
    customer = billed(client, peers, april="300")
    peers.usage.late[customer.id] = [late(MAY, sealed("requests", "300", events=305))]
    client.bill(JUNE)
    assert adjustments(client.invoices_of(customer)[0]) == []


def test_roundings_of_the_parts_add_up_to_the_rounding_of_the_whole(client: Client, peers: Peers) -> None:
    customer = client.customer()
    price = {"meter": "requests", "unit_price": {"value": "0.004"}}
    plan = client.plan({"components": [{"id": "c", "display_name": "Requests", "per_unit": price}]})
    client.subscribe(customer, plan, APRIL)
    peers.usage.totals[customer.id] = [sealed("requests", "1")]
    client.bill(MAY)
    peers.usage.totals[customer.id] = []
    peers.usage.late[customer.id] = [late(MAY, sealed("requests", "2", events=2))]
    client.bill(JUNE)
    june, may = client.invoices_of(customer)
    # 0.004 is 0.00; two are 0.008, which is 0.01: the second costs the whole of it.
    assert (str(amount(may.total)), str(amount(june.total))) == ("0", "0.01")


def test_usage_that_is_taken_back_is_credited(client: Client, peers: Peers) -> None:
    customer = billed(client, peers, april="400")  # 10.00
    peers.usage.late[customer.id] = [late(MAY, sealed("requests", "200", events=200))]  # 4.00
    client.bill(JUNE)
    invoice = client.invoices_of(customer)[0]
    (line,) = adjustments(invoice)
    assert (str(amount(line.amount)), line.quantity.value) == ("-6", "-200")
    assert str(amount(invoice.total)) == "493"


def test_a_credit_above_the_charges_leaves_nothing_due(client: Client, peers: Peers) -> None:
    customer = client.customer()
    price = {"meter": "requests", "unit_price": {"value": "1"}}
    plan = client.plan({"components": [{"id": "c", "display_name": "Requests", "per_unit": price}]})
    client.subscribe(customer, plan, APRIL)
    peers.usage.totals[customer.id] = [sealed("requests", "5", events=5)]
    client.bill(MAY)
    peers.usage.totals[customer.id] = []
    peers.usage.late[customer.id] = [late(MAY, sealed("requests", "2", events=2))]
    client.bill(JUNE)
    invoice = client.invoices_of(customer)[0]
    assert (str(amount(invoice.total)), str(amount(invoice.amount_due))) == ("-3", "0")
    assert invoice.state == invoice_service_pb2.INVOICE_STATE_PAID


def test_late_usage_of_a_period_without_an_invoice_is_left_to_that_invoice(client: Client, peers: Peers) -> None:
    customer = client.customer()
    client.subscribe(customer, client.plan(), MAY)
    peers.usage.late[customer.id] = [late("2025-12-31T18:30", sealed("requests", "1000", events=1000))]
    client.bill(JUNE)
    assert adjustments(client.invoices_of(customer)[0]) == []


def test_groups_of_a_meter_are_priced_together(client: Client, peers: Peers) -> None:
    customer = client.customer()
    client.subscribe(customer, client.plan(), MAY)
    groups = [sealed("requests", "150", events=150, traces=["d" * 32]), sealed("requests", "50", events=50)]
    groups[0].group["region"], groups[1].group["region"] = "in", "eu"
    peers.usage.totals[customer.id] = groups
    client.bill(JUNE)
    line = client.invoices_of(customer)[0].lines[1]
    assert line.quantity == decimal_pb2.Decimal(value="200")
    assert (line.event_count, str(amount(line.amount))) == (200, "4")
