"""Invoices: shown, and paid."""

from collections.abc import Callable
from datetime import datetime

import sqlalchemy as sa
from opentelemetry import trace

from meterscope.billing.v1 import invoice_service_pb2 as pb
from services.billing.convert import invoice as convert
from services.billing.domain.customer import refuse, text_violations
from services.billing.domain.invoice import Invoice, InvoiceState, paid
from services.billing.domain.ledger import payment_posting
from services.billing.errors import InvoiceNotFound, SubscriptionNotFound
from services.billing.rendering import InvoicePage
from services.billing.store import invoices, ledger, subscriptions
from services.billing.usecases.followups import INVOICE_PAID, SIGNAL_JOB
from services.kit import paging
from services.kit.db import Database
from services.kit.errors import InvalidArgument
from services.kit.exemplars import KEEP
from services.kit.idempotency import once
from services.kit.money import Money, money_from_proto
from services.kit.outbox import Outbox


class Invoices:
    """Shows invoices and records what is paid of them."""

    def __init__(self, database: Database, outbox: Outbox, page: InvoicePage, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._outbox = outbox
        self._page = page
        self._clock = clock

    def get(self, invoice_id: str) -> Invoice:
        """Return an invoice. Raises InvoiceNotFound."""
        with self._database.transaction() as conn:
            found = invoices.get(conn, invoice_id)
        if found is None:
            raise InvoiceNotFound(invoice_id)
        return found

    def page(
        self, *, customer_id: str, bill_run_id: str, state: InvoiceState | None, page_size: int, page_token: str
    ) -> tuple[list[Invoice], str]:
        """Return a page of invoices, newest first, and the next page's token."""
        filters = {"customer_id": customer_id, "bill_run_id": bill_run_id, "state": state or ""}
        size = paging.page_size(page_size)
        before = paging.decode_token(page_token, filters) or [""]
        with self._database.transaction() as conn:
            found = invoices.page(
                conn,
                customer_id=customer_id,
                bill_run_id=bill_run_id,
                state=state,
                before=before[0],
                limit=size + 1,
            )
        return found[:size], paging.encode_token([found[size - 1].id], filters) if len(found) > size else ""

    def render(self, invoice_id: str) -> bytes:
        """Return an invoice as an HTML page, with its times in the customer's zone. Raises InvoiceNotFound."""
        invoice = self.get(invoice_id)
        with self._database.transaction() as conn:
            subscription = subscriptions.get(conn, invoice.subscription_id)
        if subscription is None:
            raise SubscriptionNotFound(invoice.subscription_id)
        return self._page.render(invoice, subscription.time_zone)

    def record_payment(self, request: pb.RecordPaymentRequest) -> pb.Invoice:
        """Record a payment of an invoice, once by its request id, and post it.

        Raises:
            InvalidArgument: a field is missing, another currency, more than is due.
            InvoiceNotFound, InvoiceNotPayable: no such invoice, or it does not wait for a payment.
        """
        for field in ("request_id", "invoice_id", "payment_id", "provider"):
            if not getattr(request, field):
                raise InvalidArgument.at(field, "is missing")
        refuse(
            [part for field in ("payment_id", "provider") for part in text_violations(field, getattr(request, field))]
        )
        amount = money_from_proto(request.amount, "amount")
        trace.get_current_span().set_attribute(KEEP, value=True)
        with self._database.transaction() as conn:
            return once(
                conn,
                method="RecordPayment",
                request_id=request.request_id,
                request=request,
                response_type=pb.Invoice,
                act=lambda: convert.invoice(self._record(conn, request, amount)),
            )

    def _record(self, conn: sa.Connection, request: pb.RecordPaymentRequest, amount: Money) -> Invoice:
        invoice = invoices.get(conn, request.invoice_id, lock=True)
        if invoice is None:
            raise InvoiceNotFound(request.invoice_id)
        if amount.currency != invoice.currency:
            raise InvalidArgument.at("amount", f"is in {amount.currency}; the invoice is in {invoice.currency}")
        now = self._clock()
        updated = paid(invoice, request.payment_id, amount.amount, now)
        invoices.record_payment(conn, updated)
        ledger.post(conn, payment_posting(invoice, request.payment_id, request.provider, amount.amount), now)
        if updated.state is InvoiceState.PAID:
            self._outbox.put(conn, job=SIGNAL_JOB, payload={"type": INVOICE_PAID, "invoice_id": invoice.id})
        return updated
