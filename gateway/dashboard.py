"""The read-only dashboard `/billing`, and the page that explains an invoice line.

The services are asked at the same time; one that is away leaves a note where its rows would be.
"""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

import grpc
from google.protobuf.message import Message
from starlette.requests import Request
from starlette.responses import Response

from gateway import json_writer, problem
from gateway.backends import Backends
from gateway.contract import Contract
from gateway.page import Pages
from meterscope.alerts.v1 import alert_service_pb2, notification_service_pb2
from meterscope.billing.v1 import customer_service_pb2, invoice_service_pb2, ledger_service_pb2
from meterscope.payments.v1 import payment_service_pb2
from meterscope.usage.v1 import limit_service_pb2
from services.kit.money import exponent, plain

_ROWS: Final = 50
_CUSTOMERS: Final = 100
_LIMITED_CUSTOMERS: Final = 30
_AT_ONCE: Final = 8
_SECONDS: Final = 5.0
_AWAY: Final = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


@dataclass(frozen=True)
class Shown:
    """What one call brought: rows as JSON, or why there are none.

    Attributes:
        service: who was asked.
        content: the answer as JSON; empty without one.
        failure: what to tell people, empty if all is well.
        is_away: whether the service gave no answer at all.
    """

    service: str
    content: Mapping[str, Any]
    failure: str = ""
    is_away: bool = False


@dataclass(frozen=True)
class Balance:
    """The ledger's sums of one currency, as people read them."""

    currency: str
    invoiced: str
    collected: str
    outstanding: str


class Dashboard:
    """The pages."""

    def __init__(self, contract: Contract, pages: Pages) -> None:
        self._methods = contract.methods
        self._pages = pages

    async def overview(self, request: Request) -> Response:
        """`/billing`: customers, invoices, payments, alerts, notifications, usage against limits."""
        backends: Backends = request.state.backends
        customers, invoices, ledger, payments, alerts, notifications = await asyncio.gather(
            self._ask(
                backends,
                "billing.v1.CustomerService.ListCustomers",
                customer_service_pb2.ListCustomersRequest(page_size=_CUSTOMERS),
            ),
            self._ask(
                backends,
                "billing.v1.InvoiceService.ListInvoices",
                invoice_service_pb2.ListInvoicesRequest(page_size=_ROWS),
            ),
            self._ask(
                backends, "billing.v1.LedgerService.GetTrialBalance", ledger_service_pb2.GetTrialBalanceRequest()
            ),
            self._ask(
                backends,
                "payments.v1.PaymentService.ListPayments",
                payment_service_pb2.ListPaymentsRequest(page_size=_ROWS),
            ),
            self._ask(
                backends,
                "alerts.v1.AlertService.ListAlerts",
                alert_service_pb2.ListAlertsRequest(page_size=_ROWS),
            ),
            self._ask(
                backends,
                "alerts.v1.NotificationService.ListNotifications",
                notification_service_pb2.ListNotificationsRequest(page_size=_ROWS),
            ),
        )
        known = customers.content.get("customers", [])
        limits = await self._limits(backends, [customer["id"] for customer in known[:_LIMITED_CUSTOMERS]])
        parts = (customers, invoices, ledger, payments, alerts, notifications, *limits.values())
        content = {
            "customers": customers,
            "invoices": invoices,
            "ledger": ledger,
            "balances": list(_balances(ledger.content)),
            "payments": payments,
            "alerts": alerts,
            "notifications": notifications,
            "limits": limits,
            "names": {customer["id"]: customer["display_name"] for customer in known},
            "away": sorted({part.service for part in parts if part.is_away}),
        }
        return self._pages.render("billing.html", content)

    async def explanation(self, request: Request) -> Response:
        """`/billing/invoices/{invoice_id}/lines/{line_id}`: what made the line, back to its events and traces."""
        line = invoice_service_pb2.ExplainInvoiceLineRequest(**request.path_params, page_size=_ROWS)
        method = self._methods["meterscope.billing.v1.InvoiceService.ExplainInvoiceLine"]
        try:
            answer = await request.state.backends.call(method, line, seconds=_SECONDS)
        except grpc.aio.AioRpcError as error:
            failed = problem.from_rpc_error(error, method.service, "")
            return self._pages.render("problem.html", {"problem": failed}, status=failed.status)
        content = {"invoice_id": line.invoice_id, "explanation": json_writer.write(answer)}
        return self._pages.render("explanation.html", content)

    async def _limits(self, backends: Backends, customer_ids: Iterable[str]) -> dict[str, Shown]:
        gate = asyncio.Semaphore(_AT_ONCE)

        async def ask(customer_id: str) -> Shown:
            async with gate:
                return await self._ask(
                    backends,
                    "usage.v1.LimitService.ListLimits",
                    limit_service_pb2.ListLimitsRequest(customer_id=customer_id),
                )

        ids = list(customer_ids)
        return dict(zip(ids, await asyncio.gather(*(ask(each) for each in ids)), strict=True))

    async def _ask(self, backends: Backends, name: str, request: Message) -> Shown:
        method = self._methods[f"meterscope.{name}"]
        try:
            answer = await backends.call(method, request, seconds=_SECONDS)
        except grpc.aio.AioRpcError as error:
            detail = problem.from_rpc_error(error, method.service, "").detail
            return Shown(method.service, {}, detail, is_away=error.code() in _AWAY)
        return Shown(method.service, json_writer.write(answer))


def _balances(trial_balance: Mapping[str, Any]) -> Iterable[Balance]:
    """Add the accounts up by what they stand for: revenue is a credit, so its sign is turned."""
    for currency in trial_balance.get("currencies", []):
        sums = {"revenue": Decimal(0), "cash": Decimal(0), "receivable": Decimal(0)}
        for account in currency["accounts"]:
            kind = account["id"].partition(":")[0]
            if kind in sums:
                sums[kind] += Decimal(account["balance"]["amount"])
        code = currency["currency"]
        yield Balance(
            currency=code,
            invoiced=_amount(-sums["revenue"], code),
            collected=_amount(sums["cash"], code),
            outstanding=_amount(sums["receivable"], code),
        )


def _amount(value: Decimal, currency: str) -> str:
    return f"{Decimal(plain(value)):,.{exponent(currency)}f}"
