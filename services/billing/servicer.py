"""The gRPC entry: decode, one use case, encode. What each method answers and refuses stands in the protos."""

from typing import Final

import grpc
from google.api import httpbody_pb2

from meterscope.billing.v1 import bill_run_service_pb2 as bill_runs_pb
from meterscope.billing.v1 import bill_run_service_pb2_grpc as bill_runs_grpc
from meterscope.billing.v1 import catalog_service_pb2 as catalog_pb
from meterscope.billing.v1 import catalog_service_pb2_grpc as catalog_grpc
from meterscope.billing.v1 import customer_service_pb2 as customers_pb
from meterscope.billing.v1 import customer_service_pb2_grpc as customers_grpc
from meterscope.billing.v1 import invoice_service_pb2 as invoices_pb
from meterscope.billing.v1 import invoice_service_pb2_grpc as invoices_grpc
from meterscope.billing.v1 import ledger_service_pb2 as ledger_pb
from meterscope.billing.v1 import ledger_service_pb2_grpc as ledger_grpc
from meterscope.billing.v1 import subscription_service_pb2 as subscriptions_pb
from meterscope.billing.v1 import subscription_service_pb2_grpc as subscriptions_grpc
from services.billing.convert import bill_run, customer, invoice, ledger, plan, price
from services.billing.usecases.bill_runs import BillRuns
from services.billing.usecases.customers import Customers
from services.billing.usecases.explanations import Explanations
from services.billing.usecases.invoices import Invoices
from services.billing.usecases.ledger import Ledger
from services.billing.usecases.plans import Plans
from services.billing.usecases.prices import Prices
from services.billing.usecases.subscriptions import Subscriptions
from services.kit import telemetry
from services.kit.errors import InvalidArgument

SERVICE_NAMES: Final = tuple(
    descriptor.services_by_name[name].full_name
    for descriptor, name in (
        (bill_runs_pb.DESCRIPTOR, "BillRunService"),
        (catalog_pb.DESCRIPTOR, "CatalogService"),
        (customers_pb.DESCRIPTOR, "CustomerService"),
        (invoices_pb.DESCRIPTOR, "InvoiceService"),
        (ledger_pb.DESCRIPTOR, "LedgerService"),
        (subscriptions_pb.DESCRIPTOR, "SubscriptionService"),
    )
)


class CustomerServicer(customers_grpc.CustomerServiceServicer):
    """CustomerService. See the proto for the contract."""

    def __init__(self, customers: Customers) -> None:
        self._customers = customers

    def CreateCustomer(
        self, request: customers_pb.CreateCustomerRequest, _context: grpc.ServicerContext
    ) -> customers_pb.Customer:
        """Create a customer."""
        return self._customers.create(request)

    def GetCustomer(
        self, request: customers_pb.GetCustomerRequest, _context: grpc.ServicerContext
    ) -> customers_pb.Customer:
        """Return a customer."""
        return customer.customer(self._customers.get(request.customer_id))

    def ListCustomers(
        self, request: customers_pb.ListCustomersRequest, _context: grpc.ServicerContext
    ) -> customers_pb.ListCustomersResponse:
        """List customers in the order of their creation."""
        found, token = self._customers.page(
            external_key=request.external_key, page_size=request.page_size, page_token=request.page_token
        )
        return customers_pb.ListCustomersResponse(customers=map(customer.customer, found), next_page_token=token)


class CatalogServicer(catalog_grpc.CatalogServiceServicer):
    """CatalogService. See the proto for the contract."""

    def __init__(self, plans: Plans, prices: Prices) -> None:
        self._plans = plans
        self._prices = prices

    def CreatePlan(self, request: catalog_pb.CreatePlanRequest, _context: grpc.ServicerContext) -> catalog_pb.Plan:
        """Create a plan."""
        return self._plans.create(request)

    def GetPlan(self, request: catalog_pb.GetPlanRequest, _context: grpc.ServicerContext) -> catalog_pb.Plan:
        """Return a plan."""
        return plan.plan(self._plans.get(request.plan_id))

    def ListPlans(
        self, request: catalog_pb.ListPlansRequest, _context: grpc.ServicerContext
    ) -> catalog_pb.ListPlansResponse:
        """List plans by id."""
        found, token = self._plans.page(page_size=request.page_size, page_token=request.page_token)
        return catalog_pb.ListPlansResponse(plans=map(plan.plan, found), next_page_token=token)

    def PreviewPrice(
        self, request: catalog_pb.PreviewPriceRequest, _context: grpc.ServicerContext
    ) -> catalog_pb.PricePreview:
        """Price quantities."""
        quantities = price.quantities(request.quantities)
        if request.plan_id:
            return price.preview(self._prices.on_plan(request.plan_id, quantities))
        if request.customer_id:
            return price.preview(self._prices.of_customer(request.customer_id, quantities))
        raise InvalidArgument.at("plan_id", "is missing, and so is customer_id; set one of them", reason="MISSING")

    def PriceUsage(
        self, request: catalog_pb.PriceUsageRequest, _context: grpc.ServicerContext
    ) -> catalog_pb.PriceUsageResponse:
        """Price running totals."""
        return price.costs(self._prices.running(price.periods(request)))

    def ComparePlans(
        self, request: catalog_pb.ComparePlansRequest, _context: grpc.ServicerContext
    ) -> catalog_pb.ComparePlansResponse:
        """Price the same usage on each plan."""
        return price.plan_costs(self._prices.compare(request.customer_id, price.compared(request)))


class SubscriptionServicer(subscriptions_grpc.SubscriptionServiceServicer):
    """SubscriptionService. See the proto for the contract."""

    def __init__(self, subscriptions: Subscriptions) -> None:
        self._subscriptions = subscriptions

    def CreateSubscription(
        self, request: subscriptions_pb.CreateSubscriptionRequest, _context: grpc.ServicerContext
    ) -> subscriptions_pb.Subscription:
        """Subscribe a customer to a plan."""
        with telemetry.customer(request.subscription.customer_id):
            return self._subscriptions.create(request)

    def GetSubscription(
        self, request: subscriptions_pb.GetSubscriptionRequest, _context: grpc.ServicerContext
    ) -> subscriptions_pb.Subscription:
        """Return a subscription."""
        return customer.subscription(self._subscriptions.get(request.subscription_id))

    def ListSubscriptions(
        self, request: subscriptions_pb.ListSubscriptionsRequest, _context: grpc.ServicerContext
    ) -> subscriptions_pb.ListSubscriptionsResponse:
        """List subscriptions in the order of their creation."""
        found, token = self._subscriptions.page(
            customer_id=request.customer_id, page_size=request.page_size, page_token=request.page_token
        )
        return subscriptions_pb.ListSubscriptionsResponse(
            subscriptions=map(customer.subscription, found), next_page_token=token
        )


class BillRunServicer(bill_runs_grpc.BillRunServiceServicer):
    """BillRunService. See the proto for the contract."""

    def __init__(self, bill_runs: BillRuns) -> None:
        self._bill_runs = bill_runs

    def StartBillRun(
        self, request: bill_runs_pb.StartBillRunRequest, _context: grpc.ServicerContext
    ) -> bill_runs_pb.BillRun:
        """Start to bill what is due."""
        return self._bill_runs.start(request)

    def GetBillRun(
        self, request: bill_runs_pb.GetBillRunRequest, _context: grpc.ServicerContext
    ) -> bill_runs_pb.BillRun:
        """Return a bill run with its progress."""
        return bill_run.bill_run(self._bill_runs.get(request.bill_run_id))

    def ListBillRuns(
        self, request: bill_runs_pb.ListBillRunsRequest, _context: grpc.ServicerContext
    ) -> bill_runs_pb.ListBillRunsResponse:
        """List bill runs, newest first."""
        found, token = self._bill_runs.page(page_size=request.page_size, page_token=request.page_token)
        return bill_runs_pb.ListBillRunsResponse(bill_runs=map(bill_run.bill_run, found), next_page_token=token)


class InvoiceServicer(invoices_grpc.InvoiceServiceServicer):
    """InvoiceService. See the proto for the contract."""

    def __init__(self, invoices: Invoices, explanations: Explanations) -> None:
        self._invoices = invoices
        self._explanations = explanations

    def GetInvoice(self, request: invoices_pb.GetInvoiceRequest, _context: grpc.ServicerContext) -> invoices_pb.Invoice:
        """Return an invoice."""
        return invoice.invoice(self._invoices.get(request.invoice_id))

    def ListInvoices(
        self, request: invoices_pb.ListInvoicesRequest, _context: grpc.ServicerContext
    ) -> invoices_pb.ListInvoicesResponse:
        """List invoices, newest first."""
        found, token = self._invoices.page(
            customer_id=request.customer_id,
            bill_run_id=request.bill_run_id,
            state=invoice.state(request.state),
            page_size=request.page_size,
            page_token=request.page_token,
        )
        return invoices_pb.ListInvoicesResponse(invoices=map(invoice.invoice, found), next_page_token=token)

    def ExplainInvoiceLine(
        self, request: invoices_pb.ExplainInvoiceLineRequest, _context: grpc.ServicerContext
    ) -> invoices_pb.InvoiceLineExplanation:
        """Show what makes a line."""
        return self._explanations.explain(request)

    def RenderInvoice(
        self, request: invoices_pb.RenderInvoiceRequest, _context: grpc.ServicerContext
    ) -> httpbody_pb2.HttpBody:
        """Render an invoice as HTML."""
        if request.format not in {"", "html"}:
            raise InvalidArgument.at("format", f"{request.format!r} is not available; use html")
        return httpbody_pb2.HttpBody(
            content_type="text/html; charset=utf-8", data=self._invoices.render(request.invoice_id)
        )

    def RecordPayment(
        self, request: invoices_pb.RecordPaymentRequest, _context: grpc.ServicerContext
    ) -> invoices_pb.Invoice:
        """Record a payment."""
        return self._invoices.record_payment(request)


class LedgerServicer(ledger_grpc.LedgerServiceServicer):
    """LedgerService. See the proto for the contract."""

    def __init__(self, ledger_: Ledger) -> None:
        self._ledger = ledger_

    def ListAccounts(
        self, request: ledger_pb.ListAccountsRequest, _context: grpc.ServicerContext
    ) -> ledger_pb.ListAccountsResponse:
        """List accounts by id."""
        found, token = self._ledger.accounts(page_size=request.page_size, page_token=request.page_token)
        return ledger_pb.ListAccountsResponse(accounts=map(ledger.account, found), next_page_token=token)

    def ListEntries(
        self, request: ledger_pb.ListEntriesRequest, _context: grpc.ServicerContext
    ) -> ledger_pb.ListEntriesResponse:
        """List entries, newest first."""
        found, token = self._ledger.entries(
            account=request.account_id,
            invoice_id=request.invoice_id,
            page_size=request.page_size,
            page_token=request.page_token,
        )
        return ledger_pb.ListEntriesResponse(entries=map(ledger.entry, found), next_page_token=token)

    def GetTrialBalance(
        self, _request: ledger_pb.GetTrialBalanceRequest, _context: grpc.ServicerContext
    ) -> ledger_pb.TrialBalance:
        """Return the sums of the ledger."""
        return ledger.trial_balance(self._ledger.trial_balance())
