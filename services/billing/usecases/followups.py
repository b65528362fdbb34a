"""What follows from an invoice in other services: its collection, and what people should know of it."""

import logging
from collections.abc import Mapping
from datetime import timedelta
from typing import Final

from google.protobuf.struct_pb2 import Struct

from meterscope.alerts.v1 import alert_service_pb2
from services.billing.clients import Alerts, Payments
from services.billing.domain.invoice import Invoice, InvoiceState
from services.billing.errors import InvoiceCollectedElsewhere, InvoiceNotFound, PaymentMethodMissing
from services.billing.store import invoices
from services.kit import telemetry
from services.kit.db import Database
from services.kit.money import Money
from services.kit.outbox import Job, Outbox, Postpone

COLLECT_JOB: Final = "collect_invoice"
SIGNAL_JOB: Final = "raise_signal"
INVOICE_PAID: Final = "invoice_paid"
METHOD_MISSING: Final = "payment_method_missing"

_log = logging.getLogger(__name__)


class Collection:
    """The job that hands an invoice to payments."""

    def __init__(self, database: Database, outbox: Outbox, payments: Payments, *, retry: timedelta) -> None:
        self._database = database
        self._outbox = outbox
        self._payments = payments
        self._retry = retry

    def collect(self, job: Job) -> None:
        """Have the invoice collected; while its customer has no payment method, say so and come back later."""
        invoice = _invoice(self._database, job.payload["invoice_id"])
        if invoice.state is not InvoiceState.FINALIZED:
            return
        with telemetry.customer(invoice.customer_id):
            try:
                payment_id = self._payments.collect(invoice, job.id)
            except InvoiceCollectedElsewhere as collected:
                # Payments tells of the money by RecordPayment, whoever asked it to collect.
                _log.warning("invoice not collected again: %s", collected.message, extra={"invoice_id": invoice.id})
                return
            except PaymentMethodMissing as missing:
                _log.warning("invoice not collected: %s", missing.message, extra={"invoice_id": invoice.id})
                with self._database.transaction() as conn:
                    payload = {"type": METHOD_MISSING, "invoice_id": invoice.id}
                    self._outbox.put(conn, job=SIGNAL_JOB, payload=payload)
                raise Postpone(self._retry, missing.message) from missing
            with self._database.transaction() as conn:
                invoices.name_payment(conn, invoice.id, payment_id)
                job.finish(conn)


class Signals:
    """The job that tells alerts."""

    def __init__(self, database: Database, alerts: Alerts) -> None:
        self._database = database
        self._alerts = alerts

    def raise_signal(self, job: Job) -> None:
        """Tell alerts of an invoice. The signal says only what does not change any more, so that a repeat is equal."""
        invoice = _invoice(self._database, job.payload["invoice_id"])
        request = _SIGNALS[job.payload["type"]](invoice)
        request.request_id = job.id
        with telemetry.customer(invoice.customer_id):
            self._alerts.raise_signal(request)


def _paid(invoice: Invoice) -> alert_service_pb2.RaiseSignalRequest:
    total = Money(invoice.total, invoice.currency)
    return _signal(
        invoice,
        INVOICE_PAID,
        alert_service_pb2.SEVERITY_INFO,
        title=f"Invoice {invoice.number} is paid",
        message=f"{invoice.customer_display_name} paid {total} for invoice {invoice.number}.",
        data={"payment_id": invoice.payment_id},
        action_required=False,
    )


def _method_missing(invoice: Invoice) -> alert_service_pb2.RaiseSignalRequest:
    total = Money(invoice.total, invoice.currency)
    return _signal(
        invoice,
        METHOD_MISSING,
        alert_service_pb2.SEVERITY_WARNING,
        title=f"Invoice {invoice.number} cannot be collected",
        message=f"{invoice.customer_display_name} owes {total} and has no payment method; add one and it is collected.",
        data={},
        action_required=True,
    )


_SIGNALS: Final = {INVOICE_PAID: _paid, METHOD_MISSING: _method_missing}


def _signal(
    invoice: Invoice,
    kind: str,
    severity: alert_service_pb2.Severity.ValueType,
    *,
    title: str,
    message: str,
    data: Mapping[str, str],
    action_required: bool,
) -> alert_service_pb2.RaiseSignalRequest:
    struct = Struct()
    struct.update(
        {
            "invoice_id": invoice.id,
            "number": invoice.number,
            "amount": f"{invoice.total:f}",
            "currency": invoice.currency,
            **data,
        }
    )
    return alert_service_pb2.RaiseSignalRequest(
        type=kind,
        severity=severity,
        title=title,
        message=message,
        data=struct,
        action_required=action_required,
        customer_id=invoice.customer_id,
        fingerprint=f"{kind}:{invoice.id}",
        service="billing",
    )


def _invoice(database: Database, invoice_id: str) -> Invoice:
    with database.transaction() as conn:
        found = invoices.get(conn, invoice_id)
    if found is None:
        raise InvoiceNotFound(invoice_id)
    return found
