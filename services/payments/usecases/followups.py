"""The jobs that a payment leads to, written in the transaction that makes them due.

What goes to another service is written down whole: sent again after the payment has moved on, it must be the same
request under the same id, or it would be refused.
"""

from datetime import timedelta
from typing import Any, Final

import sqlalchemy as sa
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from services.kit.outbox import Outbox
from services.payments import convert
from services.payments.domain.payment import Payment

ATTEMPT_PAYMENT: Final = "attempt_payment"
RECONCILE_PAYMENT: Final = "reconcile_payment"
RECORD_PAYMENT: Final = "record_payment"
RAISE_SIGNAL: Final = "raise_signal"


def attempt(outbox: Outbox, conn: sa.Connection, payment: Payment, delay: timedelta = timedelta()) -> None:
    """Have the payment's next attempt made after `delay`."""
    payload = _reference(payment, number=len(payment.attempts) + 1)
    outbox.put(conn, job=ATTEMPT_PAYMENT, payload=payload, delay=delay)


def reconcile(outbox: Outbox, conn: sa.Connection, payment: Payment, delay: timedelta) -> None:
    """Have the provider asked what became of the payment's last attempt."""
    payload = _reference(payment, number=len(payment.attempts))
    outbox.put(conn, job=RECONCILE_PAYMENT, payload=payload, delay=delay)


def record_payment(outbox: Outbox, conn: sa.Connection, payment: Payment) -> None:
    """Have billing told that the invoice's money came in."""
    outbox.put(conn, job=RECORD_PAYMENT, payload=_json(convert.record_payment_request(payment)))


def signal_failure(outbox: Outbox, conn: sa.Connection, payment: Payment) -> None:
    """Have people told that the last attempt failed."""
    outbox.put(conn, job=RAISE_SIGNAL, payload=_json(convert.payment_failed_signal(payment)))


def _reference(payment: Payment, *, number: int) -> dict[str, Any]:
    return {"customer_id": payment.customer_id, "payment_id": payment.id, "attempt": number}


def _json(message: Message) -> dict[str, Any]:
    return MessageToDict(message, preserving_proto_field_name=True)
