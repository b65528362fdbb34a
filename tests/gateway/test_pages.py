from datetime import UTC, datetime, timedelta

import httpx
import pytest
from google.type.decimal_pb2 import Decimal
from google.type.money_pb2 import Money
from service_doubles import ServiceDouble

from meterscope.alerts.v1 import alert_service_pb2, notification_service_pb2
from meterscope.billing.v1 import customer_service_pb2, invoice_service_pb2, ledger_service_pb2
from meterscope.payments.v1 import payment_service_pb2
from meterscope.usage.v1 import limit_service_pb2, report_service_pb2
from services.kit.errors import NotFound


def rupees(units: int) -> Money:
    return Money(currency_code="INR", units=units)


@pytest.fixture
def populated(services: dict[str, ServiceDouble]) -> dict[str, ServiceDouble]:
    customers = customer_service_pb2.ListCustomersResponse()
    customer = customers.customers.add(id="cus_1", display_name="Ananya <Traders>", external_key="10.0.0.1", state=2)
    customer.time_zone = "Asia/Kolkata"
    services["billing"].answer("ListCustomers", customers)
    invoices = invoice_service_pb2.ListInvoicesResponse()
    invoice = invoices.invoices.add(id="inv_1", number="MS-2026-0001", customer_id="cus_1", state=3, total=rupees(1499))
    invoice.period.start_time.FromJsonString("2026-01-31T18:30:00Z")
    invoice.period.end_time.FromJsonString("2026-02-28T18:30:00Z")
    invoice.lines.add(id="1", description="Base fee", amount=rupees(499))
    invoice.lines.add(id="2", description="Requests", amount=rupees(1000))
    services["billing"].answer("ListInvoices", invoices)
    ledger = ledger_service_pb2.TrialBalance(balanced=True)
    currency = ledger.currencies.add(currency="INR")
    for account, balance in (
        ("receivable:cus_1", 1000),
        ("cash:sandbox", 49_000),
        ("revenue:usage", -40_000),
        ("revenue:subscription", -10_000),
    ):
        currency.accounts.add(id=account, currency="INR", balance=rupees(balance))
    services["billing"].answer("GetTrialBalance", ledger)
    payments = payment_service_pb2.ListPaymentsResponse()
    payment = payments.payments.add(id="pay_1", customer_id="cus_1", state=4, amount=rupees(1499), provider="sandbox")
    payment.attempts.add(number=1, failure_reason="insufficient_funds")
    payment.attempts.add(number=2)
    services["payments"].answer("ListPayments", payments)
    alerts = alert_service_pb2.ListAlertsResponse()
    alerts.alerts.add(title="Limit of requests reached", severity=2, state=2)
    services["alerts"].answer("ListAlerts", alerts)
    notifications = notification_service_pb2.ListNotificationsResponse()
    notifications.notifications.add(channel_kind="webhook", state=2, attempts=1, last_result="HTTP 204")
    services["alerts"].answer("ListNotifications", notifications)
    limits = limit_service_pb2.ListLimitsResponse()
    limits.limits.add(meter="requests", used=Decimal(value="482"), limit=Decimal(value="500"), percentage=96.4)
    services["usage"].answer("ListLimits", limits)
    costs = report_service_pb2.ListDailyCostsResponse()
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    # A period ends and another begins today: the day is there twice.
    for amount in (1_200, 34):
        costs.daily_costs.add(customer_id="cus_1", date=today, currency="INR", amount=rupees(amount))
    costs.daily_costs.add(customer_id="cus_1", date="2020-01-01", currency="INR", amount=rupees(77_777))
    services["usage"].answer("ListDailyCosts", costs)
    return services


@pytest.mark.usefixtures("populated")
def test_the_dashboard_shows_what_the_services_know(client: httpx.Client) -> None:
    page = client.get("/billing").text
    for shown in (
        "Ananya &lt;Traders&gt;",
        "MS-2026-0001",
        'href="/v1/invoices/inv_1:render"',
        'href="/billing/invoices/inv_1/lines/2"',
        "insufficient funds",
        "Limit of requests reached",
        "HTTP 204",
        "482 of 500",
        "balanced",
        "1,499.00",
    ):
        assert shown in page, shown
    # Revenue is 40,000 + 10,000, of which 49,000 came in and 1,000 did not.
    assert all(amount in page for amount in ("50,000.00", "49,000.00", "1,000.00"))


@pytest.mark.usefixtures("populated")
def test_periods_are_those_of_the_customers_time_zone(client: httpx.Client) -> None:
    page = client.get("/billing").text
    # 18:30 UTC is midnight of the next day in India.
    assert ">2026-02-01</time> – <time" in page
    assert ">2026-03-01</time>" in page
    assert "Asia/Kolkata" in page


def test_a_customer_beyond_the_first_page_is_asked_for(
    client: httpx.Client, populated: dict[str, ServiceDouble]
) -> None:
    populated["billing"].answer("ListCustomers", customer_service_pb2.ListCustomersResponse())
    populated["billing"].answer(
        "GetCustomer", customer_service_pb2.Customer(id="cus_1", time_zone="Australia/Lord_Howe")
    )
    page = client.get("/billing").text
    # 18:30 UTC is 05:30 of the next day there.
    assert ">2026-02-01</time>" in page
    assert "Australia/Lord_Howe" in page
    populated["billing"].answer("GetCustomer", customer_service_pb2.Customer(id="cus_1", time_zone="Mars/Base"))
    assert ">2026-01-31</time>" in client.get("/billing").text


@pytest.mark.usefixtures("populated")
def test_the_dashboard_shows_what_days_cost(client: httpx.Client, services: dict[str, ServiceDouble]) -> None:
    page = client.get("/billing").text
    # 1,200 + 34; what is older than a week is not shown.
    assert page.count("1,234.00") == 2
    assert "77,777" not in page
    (asked,) = [call.request for call in services["usage"].calls if call.method == "ListDailyCosts"]
    assert asked.start_date == f"{datetime.now(UTC) - timedelta(days=6):%Y-%m-%d}"


def test_an_empty_system_has_a_dashboard(client: httpx.Client) -> None:
    page = client.get("/billing")
    assert page.status_code == 200
    assert page.text.count("None yet.") == 6
    assert "script-src" not in page.headers["content-security-policy"]
    assert client.get("/").headers["location"] == "/billing"


def test_services_that_are_away_are_named_on_the_dashboard(away: str) -> None:
    page = httpx.get(f"{away}/billing", timeout=30)
    assert page.status_code == 200
    assert "The services alerts, billing, payments, usage are away." in page.text
    assert "the payments service is away" in page.text


def test_a_line_is_explained_back_to_its_events(client: httpx.Client, services: dict[str, ServiceDouble]) -> None:
    explanation = invoice_service_pb2.InvoiceLineExplanation(
        steps=["482 requests, of which 100 are included."], plan_id="web-inr", plan_version=1
    )
    explanation.line.CopyFrom(invoice_service_pb2.InvoiceLine(id="2", description="Requests", event_count=482))
    explanation.line.sample_trace_ids.append("4bf92f3577b34da6a3ce929d0e0e4736")
    explanation.trace_links.append("https://traces.example/4bf92f3577b34da6a3ce929d0e0e4736")
    event = explanation.events.add(id="log-1:17", source="accesslog", quantity=Decimal(value="1"), trace_id="ab" * 16)
    event.time.FromJsonString("2026-01-05T10:00:00Z")
    services["billing"].answer("ExplainInvoiceLine", explanation)
    services["billing"].answer("GetInvoice", invoice_service_pb2.Invoice(id="inv_1", customer_id="cus_1"))
    services["billing"].answer("GetCustomer", customer_service_pb2.Customer(id="cus_1", time_zone="Asia/Kolkata"))
    page = client.get("/billing/invoices/inv_1/lines/2").text
    (asked,) = [call.request for call in services["billing"].calls if call.method == "ExplainInvoiceLine"]
    assert (asked.invoice_id, asked.line_id) == ("inv_1", "2")
    for shown in ("482 requests, of which 100 are included.", "log-1:17", "ab" * 16, "2026-01-05 15:30", "1 of 482"):
        assert shown in page, shown
    assert 'href="https://traces.example/4bf92f3577b34da6a3ce929d0e0e4736"' in page


def test_a_line_that_is_not_there_is_said_to_people(client: httpx.Client, services: dict[str, ServiceDouble]) -> None:
    services["billing"].answer("ExplainInvoiceLine", NotFound("invoice inv_1 has no line 9"))
    page = client.get("/billing/invoices/inv_1/lines/9")
    assert page.status_code == 404
    assert "invoice inv_1 has no line 9" in page.text
