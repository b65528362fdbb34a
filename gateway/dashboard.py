"""The read-only dashboard `/billing`, and the page that explains an invoice line.

The services are asked at the same time; one that is away leaves a note where its rows would be.
"""

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

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
from meterscope.usage.v1 import limit_service_pb2, report_service_pb2
from services.kit.money import exponent, plain

_ROWS: Final = 50
_CUSTOMERS: Final = 100
_LIMITED_CUSTOMERS: Final = 30
_AT_ONCE: Final = 8
_SECONDS: Final = 5.0
_UTC: Final = "UTC"
_COST_DAYS: Final = 7
_COST_ROWS: Final = 1_000
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


@dataclass(frozen=True)
class CostRow:
    """What a customer's days cost, as people read it: in the order of the days, empty on one that cost nothing."""

    customer_id: str
    currency: str
    days: list[str]
    total: str


class Dashboard:
    """The pages."""

    def __init__(self, contract: Contract, pages: Pages) -> None:
        self._methods = contract.methods
        self._pages = pages

    async def overview(self, request: Request) -> Response:
        """`/billing`: customers, invoices, payments, alerts, notifications, usage against limits."""
        backends: Backends = request.state.backends
        today = datetime.now(UTC).date()
        days = [(today - timedelta(days=ago)).isoformat() for ago in range(_COST_DAYS - 1, -1, -1)]
        customers, invoices, ledger, payments, alerts, notifications, costs = await asyncio.gather(
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
            self._ask(
                backends,
                "usage.v1.ReportService.ListDailyCosts",
                report_service_pb2.ListDailyCostsRequest(start_date=days[0], page_size=_COST_ROWS),
            ),
        )
        known = customers.content.get("customers", [])
        limits, others = await asyncio.gather(
            self._limits(backends, [customer["id"] for customer in known[:_LIMITED_CUSTOMERS]]),
            self._customers(
                backends,
                {invoice["customer_id"] for invoice in invoices.content.get("invoices", [])}
                - {customer["id"] for customer in known},
            ),
        )
        parts = (customers, invoices, ledger, payments, alerts, notifications, costs, *limits.values())
        content = {
            "customers": customers,
            "invoices": invoices,
            "ledger": ledger,
            "balances": list(_balances(ledger.content)),
            "payments": payments,
            "alerts": alerts,
            "notifications": notifications,
            "limits": limits,
            "costs": costs,
            "cost_days": days,
            "cost_rows": list(_cost_rows(costs.content, days)),
            "names": {customer["id"]: customer["display_name"] for customer in known},
            "zones": {customer["id"]: _zone(customer) for customer in (*known, *others)},
            "away": sorted({part.service for part in parts if part.is_away}),
        }
        return self._pages.render("billing.html", content)

    async def explanation(self, request: Request) -> Response:
        """`/billing/invoices/{invoice_id}/lines/{line_id}`: what made the line, back to its events and traces."""
        backends: Backends = request.state.backends
        line = invoice_service_pb2.ExplainInvoiceLineRequest(**request.path_params, page_size=_ROWS)
        method = self._methods["meterscope.billing.v1.InvoiceService.ExplainInvoiceLine"]
        try:
            answer = await backends.call(method, line, seconds=_SECONDS)
        except grpc.aio.AioRpcError as error:
            failed = problem.from_rpc_error(error, method.service, "")
            return self._pages.render("problem.html", {"problem": failed}, status=failed.status)
        invoice = await self._ask(
            backends,
            "billing.v1.InvoiceService.GetInvoice",
            invoice_service_pb2.GetInvoiceRequest(invoice_id=line.invoice_id),
        )
        customers = await self._customers(backends, {invoice.content.get("customer_id", "")} - {""})
        content = {
            "invoice_id": line.invoice_id,
            "explanation": json_writer.write(answer),
            "zone": _zone(customers[0]) if customers else _UTC,
        }
        return self._pages.render("explanation.html", content)

    async def _customers(self, backends: Backends, customer_ids: Collection[str]) -> list[Mapping[str, Any]]:
        """Return the customers that billing knows of these."""
        gate = asyncio.Semaphore(_AT_ONCE)

        async def ask(customer_id: str) -> Mapping[str, Any]:
            async with gate:
                shown = await self._ask(
                    backends,
                    "billing.v1.CustomerService.GetCustomer",
                    customer_service_pb2.GetCustomerRequest(customer_id=customer_id),
                )
                return shown.content

        return [found for found in await asyncio.gather(*map(ask, customer_ids)) if found]

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


def _zone(customer: Mapping[str, Any]) -> str:
    """Return a customer's time zone; UTC if this machine does not know it."""
    name = str(customer.get("time_zone") or _UTC)
    try:
        return ZoneInfo(name).key
    except (ValueError, OSError, ZoneInfoNotFoundError):
        return _UTC


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


def _cost_rows(listed: Mapping[str, Any], days: Sequence[str]) -> Iterable[CostRow]:
    """Lay daily costs out by customer. The day that ends one period and begins another comes twice and is added up."""
    rows: dict[tuple[str, str], dict[str, Decimal]] = {}
    for cost in listed.get("daily_costs", []):
        by_day = rows.setdefault((cost["customer_id"], cost["currency"]), {})
        by_day[cost["date"]] = by_day.get(cost["date"], Decimal(0)) + Decimal(cost["amount"]["amount"])
    for (customer_id, currency), by_day in rows.items():
        shown = {day: amount for day, amount in by_day.items() if day in days}
        if shown:
            yield CostRow(
                customer_id,
                currency,
                [_amount(shown[day], currency) if day in shown else "" for day in days],
                _amount(sum(shown.values(), Decimal(0)), currency),
            )


def _amount(value: Decimal, currency: str) -> str:
    return f"{Decimal(plain(value)):,.{exponent(currency)}f}"
