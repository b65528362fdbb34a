"""The month closes: invoices, payments, ledger; each compared with what the plan's file makes of the input."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from meterscope.billing.v1 import bill_run_service_pb2 as runs
from meterscope.billing.v1 import invoice_service_pb2 as invoices
from meterscope.billing.v1 import ledger_service_pb2 as ledger
from meterscope.demo import pricing, waiting
from meterscope.demo.backend import Backend, decimal, pages
from meterscope.demo.errors import DemoFailed
from meterscope.demo.month import Month
from meterscope.demo.traffic import Traffic
from meterscope.payments.v1 import payment_service_pb2 as payments

_RUN_SECONDS: Final = 60.0
_PAID_SECONDS: Final = 60.0


def close(backend: Backend, month: Month, request_id: str) -> runs.BillRun:
    """Bill all that ended by the month's end, and wait until that is done.

    Raises:
        DemoFailed: a period could not be billed, or it takes longer than a minute.
    """
    request = runs.StartBillRunRequest(request_id=request_id)
    request.as_of.FromDatetime(month.end)
    started = backend.bill_runs.StartBillRun(request)

    def ended() -> runs.BillRun | None:
        run = backend.bill_runs.GetBillRun(runs.GetBillRunRequest(bill_run_id=started.id))
        return None if run.state == runs.BILL_RUN_STATE_RUNNING else run

    run = waiting.until(f"bill run {started.id} ends", ended, seconds=_RUN_SECONDS)
    if run.failures:
        raise DemoFailed(f"customer {run.failures[0].customer_id} could not be billed: {run.failures[0].message}")
    return run


def all_invoices(backend: Backend) -> list[invoices.Invoice]:
    """Return all invoices, newest first."""
    return list(pages(backend.invoices.ListInvoices, invoices.ListInvoicesRequest(), "invoices"))


def all_payments(backend: Backend) -> list[payments.Payment]:
    """Return all payments, newest first."""
    return list(pages(backend.payments.ListPayments, payments.ListPaymentsRequest(), "payments"))


def wait_until_paid(backend: Backend, run: runs.BillRun, ids: Mapping[str, str]) -> dict[str, invoices.Invoice]:
    """Wait until the run's invoices are paid, and return them by customer key.

    Raises:
        DemoFailed: it takes longer than a minute, or a customer has not exactly one.
    """

    def paid() -> list[invoices.Invoice]:
        request = invoices.ListInvoicesRequest(bill_run_id=run.id)
        found = list(pages(backend.invoices.ListInvoices, request, "invoices"))
        done = found and all(invoice.state == invoices.INVOICE_STATE_PAID for invoice in found)
        return found if done else []

    found = waiting.until("all invoices are paid", paid, seconds=_PAID_SECONDS)
    keys = {customer_id: key for key, customer_id in ids.items()}
    by_key = {keys[invoice.customer_id]: invoice for invoice in found if invoice.customer_id in keys}
    if len(by_key) != len(ids) or len(found) != len(ids):
        raise DemoFailed(f"{len(found)} invoices for {len(by_key)} of {len(ids)} customers")
    return by_key


def check_invoices(by_key: Mapping[str, invoices.Invoice], plan: Mapping[str, Any], traffic: Traffic) -> None:
    """Compare each line's quantity and amount, and each total, with the plan applied to the input.

    Raises:
        DemoFailed: they differ.
    """
    for key, invoice in by_key.items():
        usage = {"requests": traffic.requests[key], "bytes": traffic.bytes[key]}
        amounts = pricing.amounts(plan, usage)
        if [decimal(line.amount) for line in invoice.lines] != amounts or decimal(invoice.total) != sum(amounts):
            shown = ", ".join(f"{decimal(line.amount)}" for line in invoice.lines)
            raise DemoFailed(f"invoice {invoice.number}: lines of {shown} instead of {', '.join(map(str, amounts))}")
        for line in invoice.lines:
            if line.meter and Decimal(line.quantity.value) != usage[line.meter]:
                raise DemoFailed(f"invoice {invoice.number}: {line.quantity.value} instead of {usage[line.meter]}")


def check_payments(
    found: Sequence[payments.Payment], by_key: Mapping[str, invoices.Invoice], declined: str
) -> dict[str, payments.Payment]:
    """Check that each invoice has one payment, at the first attempt but for `declined`, and return them by key.

    Raises:
        DemoFailed: it is otherwise.
    """
    by_invoice: dict[str, list[payments.Payment]] = {}
    for payment in found:
        by_invoice.setdefault(payment.invoice_id, []).append(payment)
    by_customer: dict[str, payments.Payment] = {}
    for key, invoice in by_key.items():
        own = by_invoice.get(invoice.id, [])
        if len(own) != 1:
            raise DemoFailed(f"invoice {invoice.number} has {len(own)} payments instead of one")
        reasons = [attempt.failure_reason for attempt in own[0].attempts]
        if reasons != (["insufficient_funds", ""] if key == declined else [""]):
            raise DemoFailed(f"payment {own[0].id}: attempts ended with {reasons}")
        by_customer[key] = own[0]
    return by_customer


def check_ledger(backend: Backend, by_key: Mapping[str, invoices.Invoice]) -> ledger.TrialBalance:
    """Check that the ledger adds up to zero, that nothing is owed, and that cash and revenue are the invoices' sum.

    Raises:
        DemoFailed: it is otherwise.
    """
    balance = backend.ledger.GetTrialBalance(ledger.GetTrialBalanceRequest())
    if not balance.balanced or any(decimal(currency.difference) for currency in balance.currencies):
        raise DemoFailed("the ledger does not add up to zero")
    total = sum(decimal(invoice.total) for invoice in by_key.values())
    sums: dict[str, Decimal] = {}
    for currency in balance.currencies:
        for account in currency.accounts:
            kind = account.id.partition(":")[0]
            sums[kind] = sums.get(kind, Decimal(0)) + decimal(account.balance)
    if sums.get("cash") != total or sums.get("revenue") != -total or sums.get("receivable"):
        raise DemoFailed(f"the ledger holds {sums}, the invoices add up to {total}")
    return balance
