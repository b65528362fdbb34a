"""What tests of the billing service hold in their hands: its client and a clock."""

import itertools
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, TypeVar

import grpc
from eventually import eventually
from google.protobuf import json_format
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2
from google.type import decimal_pb2, money_pb2
from grpc_status import rpc_status
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader, NumberDataPoint

from meterscope.billing.v1 import bill_run_service_pb2 as bill_runs_pb
from meterscope.billing.v1 import bill_run_service_pb2_grpc as bill_runs_grpc
from meterscope.billing.v1 import catalog_service_pb2 as catalog_pb
from meterscope.billing.v1 import catalog_service_pb2_grpc as catalog_grpc
from meterscope.billing.v1 import customer_service_pb2 as customers_pb
from meterscope.billing.v1 import customer_service_pb2_grpc as customers_grpc
from meterscope.billing.v1 import invoice_service_pb2 as invoices_pb
from meterscope.billing.v1 import invoice_service_pb2_grpc as invoices_grpc
from meterscope.billing.v1 import ledger_service_pb2_grpc as ledger_grpc
from meterscope.billing.v1 import subscription_service_pb2 as subscriptions_pb
from meterscope.billing.v1 import subscription_service_pb2_grpc as subscriptions_grpc
from services.kit.ids import new_id

T = TypeVar("T")

_numbers = itertools.count(1)

# Base fee 499.00; 100 requests free, then 40 per 1,000 up to 200, 30 up to 400, 20 above; 8.50 per 10^9 bytes.
INR_PLAN: dict[str, Any] = {
    "display_name": "Web, in rupees",
    "currency": "INR",
    "interval": "BILLING_INTERVAL_MONTH",
    "components": [
        {
            "id": "base",
            "display_name": "Base fee",
            "flat_fee": {"amount": {"currency_code": "INR", "units": 499}},
        },
        {
            "id": "requests",
            "display_name": "Requests",
            "graduated": {
                "meter": "requests",
                "included": {"value": "100"},
                "per": {"value": "1000"},
                "tiers": [
                    {"up_to": {"value": "200"}, "unit_price": {"value": "40"}},
                    {"up_to": {"value": "400"}, "unit_price": {"value": "30"}},
                    {"unit_price": {"value": "20"}},
                ],
            },
        },
        {
            "id": "bytes",
            "display_name": "Traffic",
            "per_unit": {
                "meter": "bytes",
                "unit_price": {"value": "8.50"},
                "per": {"value": "1000000000"},
            },
        },
    ],
    "limits": [{"meter": "requests", "limit": {"value": "500"}, "kind": "PLAN_LIMIT_KIND_SOFT"}],
}


def utc(text: str) -> datetime:
    """An instant, such as `2026-05-01T00:00`."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def timestamp(text: str) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(utc(text))
    return message


def amount(message: money_pb2.Money) -> Decimal:
    return Decimal(message.units) + Decimal(message.nanos) / 10**9


def inr(text: str) -> money_pb2.Money:
    units, _, fraction = text.partition(".")
    return money_pb2.Money(currency_code="INR", units=int(units), nanos=int(fraction.ljust(9, "0")))


def number(message: decimal_pb2.Decimal) -> Decimal:
    return Decimal(message.value)


def until(read: Callable[[], T], accept: Callable[[T], bool]) -> T:
    """Read until the value is accepted, and return it."""

    def ask() -> list[T]:
        value = read()
        return [value] if accept(value) else []

    return eventually(ask)[0]


def violations(error: grpc.RpcError) -> dict[str, str]:
    """The fields that a call's error names, and what it says of each."""
    status = rpc_status.from_call(error)  # type: ignore[arg-type] # a call's error is the call
    found: dict[str, str] = {}
    for detail in status.details if status else ():
        bad = error_details_pb2.BadRequest()
        if detail.Unpack(bad):
            found |= {violation.field: violation.description for violation in bad.field_violations}
    return found


def reason(error: grpc.RpcError) -> str:
    """The reason that a call's error gives to programs."""
    status = rpc_status.from_call(error)  # type: ignore[arg-type] # a call's error is the call
    info = error_details_pb2.ErrorInfo()
    for detail in status.details if status else ():
        if detail.Unpack(info):
            return str(info.reason)
    return ""


def points(reader: InMemoryMetricReader) -> dict[str, dict[tuple[str, ...], float]]:
    """Each instrument's values by its labels; of a histogram, how many were recorded."""
    data = reader.get_metrics_data()
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for resource in data.resource_metrics if data else ():
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                values = found.setdefault(metric.name, {})
                for point in metric.data.data_points:
                    labels = tuple(str(value) for value in (point.attributes or {}).values())
                    if isinstance(point, NumberDataPoint):
                        values[labels] = point.value
                    elif isinstance(point, HistogramDataPoint):
                        values[labels] = point.count
    return found


class Clock:
    """The service's clock: it stands where a test puts it."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now


class Client:
    """Calls the service as users, payments and the gateway do."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.customers = customers_grpc.CustomerServiceStub(channel)
        self.catalog = catalog_grpc.CatalogServiceStub(channel)
        self.subscriptions = subscriptions_grpc.SubscriptionServiceStub(channel)
        self.bill_runs = bill_runs_grpc.BillRunServiceStub(channel)
        self.invoices = invoices_grpc.InvoiceServiceStub(channel)
        self.ledger = ledger_grpc.LedgerServiceStub(channel)

    def customer(self, name: str = "Asha Traders", **fields: Any) -> customers_pb.Customer:
        """A new customer, billed in rupees by Indian time unless told otherwise."""
        values = {"display_name": name, "currency": "INR", "time_zone": "Asia/Kolkata", **fields}
        return self.customers.CreateCustomer(
            customers_pb.CreateCustomerRequest(customer=customers_pb.Customer(**values))
        )

    def plan(self, changes: Mapping[str, Any] | None = None, *, plan_id: str = "") -> catalog_pb.Plan:
        """A new plan: the one in rupees, with some fields changed."""
        document = {**INR_PLAN, "id": plan_id or f"plan-{next(_numbers)}", **(changes or {})}
        plan = json_format.ParseDict(document, catalog_pb.Plan())
        return self.catalog.CreatePlan(catalog_pb.CreatePlanRequest(plan=plan))

    def subscribe(
        self, customer: customers_pb.Customer, plan: catalog_pb.Plan, start: str
    ) -> subscriptions_pb.Subscription:
        wanted = subscriptions_pb.Subscription(customer_id=customer.id, plan_id=plan.id, start_time=timestamp(start))
        return self.subscriptions.CreateSubscription(subscriptions_pb.CreateSubscriptionRequest(subscription=wanted))

    def start_bill_run(self, as_of: str) -> bill_runs_pb.BillRun:
        return self.bill_runs.StartBillRun(
            bill_runs_pb.StartBillRunRequest(as_of=timestamp(as_of), request_id=new_id("req"))
        )

    def bill_run(self, bill_run_id: str) -> bill_runs_pb.BillRun:
        return self.bill_runs.GetBillRun(bill_runs_pb.GetBillRunRequest(bill_run_id=bill_run_id))

    def bill(self, as_of: str) -> bill_runs_pb.BillRun:
        """A bill run that has ended."""
        return self.ended(self.start_bill_run(as_of))

    def ended(self, started: bill_runs_pb.BillRun) -> bill_runs_pb.BillRun:
        """The bill run, when it has ended."""
        return until(lambda: self.bill_run(started.id), lambda run: run.state != bill_runs_pb.BILL_RUN_STATE_RUNNING)

    def invoices_of(self, customer: customers_pb.Customer) -> list[invoices_pb.Invoice]:
        """The customer's invoices, newest first."""
        request = invoices_pb.ListInvoicesRequest(customer_id=customer.id)
        return list(self.invoices.ListInvoices(request).invoices)

    def invoice(self, invoice_id: str) -> invoices_pb.Invoice:
        return self.invoices.GetInvoice(invoices_pb.GetInvoiceRequest(invoice_id=invoice_id))

    def explain(self, invoice: invoices_pb.Invoice, line_id: str, **paging: Any) -> invoices_pb.InvoiceLineExplanation:
        return self.invoices.ExplainInvoiceLine(
            invoices_pb.ExplainInvoiceLineRequest(invoice_id=invoice.id, line_id=line_id, **paging)
        )

    def pay(self, invoice: invoices_pb.Invoice, paid: money_pb2.Money, request_id: str) -> invoices_pb.Invoice:
        return self.invoices.RecordPayment(
            invoices_pb.RecordPaymentRequest(
                invoice_id=invoice.id,
                payment_id=f"pay_of_{invoice.id}",
                amount=paid,
                provider="sandbox",
                request_id=request_id,
            )
        )
