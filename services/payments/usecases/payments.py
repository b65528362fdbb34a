"""Taking payments in and showing them. The attempts are made by the worker: see attempts.py."""

from collections.abc import Callable
from datetime import datetime

import sqlalchemy as sa

from meterscope.payments.v1 import payment_service_pb2 as pb
from services.kit.db import Database
from services.kit.idempotency import once
from services.kit.ids import new_id
from services.kit.outbox import Outbox
from services.payments import convert, store
from services.payments.domain.method import PaymentMethod
from services.payments.domain.payment import NewPayment, Payment
from services.payments.errors import InvoiceAlreadyCollected, NoPaymentMethod, PaymentMethodNotFound, PaymentNotFound
from services.payments.usecases import followups


class Payments:
    """Creates and shows payments."""

    def __init__(self, database: Database, outbox: Outbox, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._outbox = outbox
        self._clock = clock

    def create(self, wanted: NewPayment, request: pb.CreatePaymentRequest) -> pb.Payment:
        """Store a pending payment and have its first attempt made.

        Args:
            wanted: the payment.
            request: what was asked, to know it again by its request id.

        Raises:
            NoPaymentMethod: the customer has none and the payment names none.
            PaymentMethodNotFound: the payment names one that the customer does not have.
            InvoiceAlreadyCollected: another payment of the invoice succeeded or may still succeed.
        """
        with self._database.transaction() as conn:
            return once(
                conn,
                method="PaymentService.CreatePayment",
                request_id=request.request_id,
                request=request,
                response_type=pb.Payment,
                act=lambda: convert.payment_message(self._add(conn, wanted)),
            )

    def get(self, payment_id: str) -> Payment:
        """Return a payment.

        Raises:
            PaymentNotFound: there is none of this id.
        """
        with self._database.transaction() as conn:
            payment = store.find_payment(conn, payment_id)
        if payment is None:
            raise PaymentNotFound(f"there is no payment {payment_id}")
        return payment

    def list(self, wanted: store.PaymentFilter, before: str | None, limit: int) -> list[Payment]:
        """Return payments, newest first, from behind the id `before`."""
        with self._database.transaction() as conn:
            return store.list_payments(conn, wanted, before, limit)

    def _add(self, conn: sa.Connection, wanted: NewPayment) -> Payment:
        method = _method(conn, wanted)
        payment = Payment(
            id=new_id("pay"),
            customer_id=wanted.customer_id,
            invoice_id=wanted.invoice_id,
            amount=wanted.amount,
            payment_method_id=method.id,
            provider=method.provider,
            create_time=self._clock(),
        )
        if not store.add_payment(conn, payment):
            raise InvoiceAlreadyCollected(
                f"{wanted.invoice_id} has a payment that succeeded or may still succeed: list the invoice's payments"
            )
        followups.attempt(self._outbox, conn, payment)
        return payment


def _method(conn: sa.Connection, wanted: NewPayment) -> PaymentMethod:
    if wanted.payment_method_id:
        named = store.find_method(conn, wanted.customer_id, wanted.payment_method_id)
        if named is None:
            raise PaymentMethodNotFound(
                f"customer {wanted.customer_id} has no payment method {wanted.payment_method_id}"
            )
        return named
    default = store.find_default_method(conn, wanted.customer_id)
    if default is None:
        raise NoPaymentMethod(
            f"customer {wanted.customer_id} has no payment method: add one with CreatePaymentMethod first"
        )
    return default
