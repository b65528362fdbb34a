"""Between messages and the domain."""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from meterscope.alerts.v1 import alert_service_pb2 as alerts
from meterscope.billing.v1 import invoice_service_pb2 as billing
from meterscope.payments.v1 import payment_method_service_pb2 as methods
from meterscope.payments.v1 import payment_service_pb2 as payments
from services.kit import paging
from services.kit.errors import InvalidArgument
from services.kit.money import money_from_proto, money_to_proto
from services.kit.redaction import has_check_digit
from services.payments.domain.method import NewPaymentMethod, PaymentMethod
from services.payments.domain.payment import Attempt, AttemptState, NewPayment, Payment, PaymentState
from services.payments.errors import card_number_refused

MAX_TEXT_BYTES: Final = 256

_PAYMENT_STATES: Final = {
    PaymentState.PENDING: payments.PAYMENT_STATE_PENDING,
    PaymentState.PROCESSING: payments.PAYMENT_STATE_PROCESSING,
    PaymentState.UNKNOWN: payments.PAYMENT_STATE_UNKNOWN,
    PaymentState.SUCCEEDED: payments.PAYMENT_STATE_SUCCEEDED,
    PaymentState.FAILED: payments.PAYMENT_STATE_FAILED,
}
_ATTEMPT_STATES: Final = {
    AttemptState.STARTED: payments.ATTEMPT_STATE_STARTED,
    AttemptState.SUCCEEDED: payments.ATTEMPT_STATE_SUCCEEDED,
    AttemptState.FAILED: payments.ATTEMPT_STATE_FAILED,
    AttemptState.UNKNOWN: payments.ATTEMPT_STATE_UNKNOWN,
}


def text(value: str, field: str, *, required: bool = True) -> str:
    """Return a short text of a request as it is.

    Raises:
        InvalidArgument: missing, longer than 256 bytes, or with a NUL character.
    """
    if required and not value:
        raise InvalidArgument.at(field, "is missing", reason="MISSING")
    if len(value.encode()) > MAX_TEXT_BYTES:
        raise InvalidArgument.at(
            field, f"has {len(value.encode())} bytes; at most {MAX_TEXT_BYTES} are kept", reason="TOO_LONG"
        )
    if "\0" in value:
        raise InvalidArgument.at(field, "contains a NUL character", reason="NUL_CHARACTER")
    return value


def page_key(token: str, filters: Mapping[str, str]) -> str | None:
    """Return the id that a page begins behind, None for the first page.

    Raises:
        InvalidArgument: not a token that a page with these filters gave.
    """
    key = paging.decode_token(token, filters)
    return text(key[0], "page_token") if key else None


def new_method(request: methods.CreatePaymentMethodRequest) -> NewPaymentMethod:
    """Decode a request to add a payment method.

    Raises:
        InvalidArgument: a field is missing or too long, or the token looks like a card number (ISO/IEC 7812-1).
    """
    token = text(request.payment_method.provider_token, "payment_method.provider_token")
    digits = re.sub(r"[\s.\-/]", "", token)
    if digits.isdecimal() and has_check_digit(digits):
        raise card_number_refused("payment_method.provider_token")
    text(request.request_id, "request_id", required=False)
    return NewPaymentMethod(
        customer_id=text(request.customer_id, "customer_id"),
        provider=text(request.payment_method.provider, "payment_method.provider"),
        provider_token=token,
        is_default=request.payment_method.is_default,
    )


def new_payment(request: payments.CreatePaymentRequest) -> NewPayment:
    """Decode a request to collect money.

    Raises:
        InvalidArgument: a field is missing or too long, or the amount is no amount above zero.
    """
    text(request.request_id, "request_id")
    wanted = request.payment
    if not wanted.HasField("amount"):
        raise InvalidArgument.at("payment.amount", "is missing", reason="MISSING")
    amount = money_from_proto(wanted.amount, "payment.amount")
    if amount.amount <= 0:
        raise InvalidArgument.at(
            "payment.amount", f"{amount} is not above zero; only money that is due is collected", reason="NOT_POSITIVE"
        )
    return NewPayment(
        customer_id=text(wanted.customer_id, "payment.customer_id"),
        invoice_id=text(wanted.invoice_id, "payment.invoice_id", required=False),
        amount=amount,
        payment_method_id=text(wanted.payment_method_id, "payment.payment_method_id", required=False),
    )


def method_message(method: PaymentMethod) -> methods.PaymentMethod:
    """Encode a payment method."""
    return methods.PaymentMethod(
        id=method.id,
        customer_id=method.customer_id,
        provider=method.provider,
        provider_token=method.provider_token,
        is_default=method.is_default,
        create_time=_timestamp(method.create_time),
    )


def payment_message(payment: Payment) -> payments.Payment:
    """Encode a payment with its attempts."""
    return payments.Payment(
        id=payment.id,
        customer_id=payment.customer_id,
        invoice_id=payment.invoice_id,
        amount=money_to_proto(payment.amount),
        payment_method_id=payment.payment_method_id,
        state=_PAYMENT_STATES[payment.state],
        provider=payment.provider,
        attempts=[_attempt_message(attempt) for attempt in payment.attempts],
        failure_reason=payment.failure_reason,
        next_attempt_time=_timestamp(payment.next_attempt_time),
        create_time=_timestamp(payment.create_time),
        complete_time=_timestamp(payment.complete_time),
    )


def record_payment_request(payment: Payment) -> billing.RecordPaymentRequest:
    """Tell billing that an invoice's money came in. The sender adds the request id."""
    return billing.RecordPaymentRequest(
        invoice_id=payment.invoice_id,
        payment_id=payment.id,
        amount=money_to_proto(payment.amount),
        provider=payment.provider,
    )


def payment_failed_signal(payment: Payment) -> alerts.RaiseSignalRequest:
    """Tell people that the last attempt failed, and whether another follows. The sender adds the request id."""
    attempt = payment.attempts[-1]
    given_up = payment.state is PaymentState.FAILED
    if payment.next_attempt_time is None:
        outlook = "It is not tried again: ask the customer for another way to pay."
    else:
        outlook = f"It is tried again at {payment.next_attempt_time:%Y-%m-%d %H:%M:%S} UTC."
    signal = alerts.RaiseSignalRequest(
        type="payment_failed",
        severity=alerts.SEVERITY_ERROR if given_up else alerts.SEVERITY_WARNING,
        title=f"Payment of {payment.amount} failed: {attempt.failure_reason}",
        message=f"Attempt {attempt.number} of payment {payment.id} at {payment.provider} failed: "
        f"{attempt.failure_reason}. {outlook}",
        action_required=given_up,
        customer_id=payment.customer_id,
        # The end is an alert of its own: joined to the first failure's, nobody would be told that they have to act.
        fingerprint=f"payment_failed:{payment.id}" + (":given_up" if given_up else ""),
        labels={"provider": payment.provider, "reason": attempt.failure_reason},
        starts_at=_timestamp(attempt.end_time),
        service="payments",
    )
    signal.data.update(
        {
            "payment_id": payment.id,
            "invoice_id": payment.invoice_id,
            "amount": str(payment.amount.amount),
            "currency": payment.amount.currency,
            "attempt": str(attempt.number),
            "reason": attempt.failure_reason,
            "given_up": given_up,
        }
    )
    return signal


def _attempt_message(attempt: Attempt) -> payments.PaymentAttempt:
    return payments.PaymentAttempt(
        number=attempt.number,
        state=_ATTEMPT_STATES[attempt.state],
        idempotency_key=attempt.idempotency_key,
        provider_reference=attempt.provider_reference,
        failure_reason=attempt.failure_reason,
        start_time=_timestamp(attempt.start_time),
        end_time=_timestamp(attempt.end_time),
    )


def _timestamp(time: datetime | None) -> Timestamp | None:
    if time is None:
        return None
    message = Timestamp()
    message.FromDatetime(time)
    return message
