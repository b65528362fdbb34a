"""Making attempts: record the intent, call the provider with no transaction open, record the outcome.

A worker may die anywhere. Before the call the attempt and its key are stored, so whoever runs the job again finds them
and, not knowing how far the first one came, asks the provider before it sends anything: never a second key, and under
the same key the provider charges once.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa
from opentelemetry import metrics, trace
from opentelemetry.trace import SpanKind, StatusCode

from services.kit.db import Database
from services.kit.exemplars import KEEP
from services.kit.outbox import Job, Outbox, Postpone
from services.payments import store
from services.payments.domain.method import PaymentMethod
from services.payments.domain.payment import Attempt, Payment, PaymentState
from services.payments.domain.retry import PROVIDER_DOWN, RetrySchedule
from services.payments.errors import PaymentMethodNotFound, PaymentNotFound
from services.payments.metrics import PaymentMetrics
from services.payments.providers.base import Declined, Outcome, Provider, ProviderDown, ProviderTimeout
from services.payments.usecases import followups

Answer = Outcome | Declined | ProviderDown | ProviderTimeout

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RetryPolicy:
    """When to try and to ask again."""

    schedule: RetrySchedule
    reconcile_delay: timedelta


class Attempts:
    """Makes attempts and settles those whose answer was lost."""

    def __init__(
        self,
        database: Database,
        outbox: Outbox,
        providers: Mapping[str, Provider],
        policy: RetryPolicy,
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._outbox = outbox
        self._providers = providers
        self._policy = policy
        self._clock = clock
        self._metrics = PaymentMetrics(metrics.get_meter("services.payments"), providers)
        self._tracer = trace.get_tracer("services.payments")

    def attempt(self, job: Job) -> None:
        """Make the attempt that the job names, unless it has ended already."""
        with self._database.transaction() as conn:
            payment = self._lock(conn, job)
            job.fence(conn)
            fresh = len(payment.attempts) < job.payload["attempt"]
            if fresh:
                payment = payment.begin(self._clock())
                store.save_payment(conn, payment)
            method = self._method(conn, payment)
        attempt = _open_attempt(payment, job)
        if attempt is None:
            return
        call = _Call(self._providers[payment.provider], payment, attempt, method)
        self._record(job, self._answer("charge", call, call.charge if fresh else call.find_or_charge))

    def reconcile(self, job: Job) -> None:
        """Ask the provider what became of the attempt that the job names, until it answers.

        Raises:
            Postpone: it did not answer.
        """
        with self._database.transaction() as conn:
            payment = self._lock(conn, job)
            method = self._method(conn, payment)
        attempt = _open_attempt(payment, job)
        if attempt is None:
            return
        call = _Call(self._providers[payment.provider], payment, attempt, method)
        answer = self._answer("find", call, call.find_or_charge)
        if isinstance(answer, ProviderTimeout):
            raise Postpone(self._policy.reconcile_delay)
        self._record(job, answer)

    def _lock(self, conn: sa.Connection, job: Job) -> Payment:
        payment = store.lock_payment(conn, job.payload["customer_id"], job.payload["payment_id"])
        if payment is None:
            raise PaymentNotFound(f"there is no payment {job.payload['payment_id']}")
        return payment

    def _method(self, conn: sa.Connection, payment: Payment) -> PaymentMethod:
        method = store.find_method(conn, payment.customer_id, payment.payment_method_id)
        if method is None:
            raise PaymentMethodNotFound(f"payment {payment.id} has lost its method {payment.payment_method_id}")
        return method

    def _answer(self, what: str, call: "_Call", act: Callable[[], Outcome]) -> Answer:
        """Call the provider; its errors are answers as well."""
        attributes: dict[str, str | bool | int] = {
            KEEP: True,
            "payment.id": call.payment.id,
            "payment.provider": call.provider.name,
            "payment.attempt": call.attempt.number,
        }
        started = time.monotonic()
        with self._tracer.start_as_current_span(
            f"{what} {call.provider.name}", kind=SpanKind.CLIENT, attributes=attributes
        ) as span:
            answer: Answer
            try:
                answer = act()
            except Declined as declined:
                answer = declined
            except (ProviderDown, ProviderTimeout) as error:
                span.set_status(StatusCode.ERROR, str(error))
                answer = error
            span.set_attribute("payment.outcome", _word(answer))
        self._metrics.answered(call.provider.name, timedelta(seconds=time.monotonic() - started))
        return answer

    def _record(self, job: Job, answer: Answer) -> None:
        now = self._clock()
        with self._database.transaction() as conn:
            payment = self._lock(conn, job)
            job.finish(conn)
            if _open_attempt(payment, job) is None:
                return
            payment = self._settled(payment, answer, now)
            store.save_payment(conn, payment)
            self._follow_up(conn, payment, now)
        self._report(payment, answer)

    def _settled(self, payment: Payment, answer: Answer, now: datetime) -> Payment:
        match answer:
            case Outcome():
                return payment.succeed(answer.reference, now)
            case Declined():
                return payment.fail(answer.reason, answer.reference, now, self._policy.schedule)
            case ProviderDown():
                return payment.fail(PROVIDER_DOWN, "", now, self._policy.schedule)
            case ProviderTimeout():
                return payment.lose_answer()

    def _follow_up(self, conn: sa.Connection, payment: Payment, now: datetime) -> None:
        if payment.state is PaymentState.UNKNOWN:
            followups.reconcile(self._outbox, conn, payment, self._policy.reconcile_delay)
        elif payment.state is PaymentState.SUCCEEDED:
            if payment.invoice_id:
                followups.record_payment(self._outbox, conn, payment)
        else:
            followups.signal_failure(self._outbox, conn, payment)
            if payment.next_attempt_time is not None:
                followups.attempt(self._outbox, conn, payment, payment.next_attempt_time - now)

    def _report(self, payment: Payment, answer: Answer) -> None:
        if isinstance(answer, Outcome):
            self._metrics.succeeded(payment.provider, payment.amount)
        elif not isinstance(answer, ProviderTimeout):
            self._metrics.failed(payment.provider, payment.failure_reason)
        _log.info(
            "payment attempted: %s",
            _word(answer),
            extra={
                "payment_id": payment.id,
                "invoice_id": payment.invoice_id,
                "customer_id": payment.customer_id,
                "amount": str(payment.amount.amount),
                "currency": payment.amount.currency,
                "attempt": len(payment.attempts),
                "payment_state": payment.state.value,
            },
        )


@dataclass(frozen=True)
class _Call:
    """One attempt at its provider."""

    provider: Provider
    payment: Payment
    attempt: Attempt
    method: PaymentMethod

    def charge(self) -> Outcome:
        return self.provider.charge(
            self.attempt.idempotency_key, self.payment.amount, self.method.provider_token, self.payment.id
        )

    def find_or_charge(self) -> Outcome:
        """Ask what became of an attempt that was made before; where the provider has none, make it, under its key.

        A provider that is down now may have worked then: here that settles nothing.
        """
        try:
            return self.provider.find(self.attempt.idempotency_key, self.payment.id) or self.charge()
        except ProviderDown as down:
            raise ProviderTimeout(f"no answer about an earlier call: {down}") from down


def _open_attempt(payment: Payment, job: Job) -> Attempt | None:
    """Return the attempt that the job is about, None if its outcome is known."""
    attempt = payment.open_attempt
    return attempt if attempt and attempt.number == job.payload["attempt"] else None


def _word(answer: Answer) -> str:
    match answer:
        case Outcome():
            return "succeeded"
        case Declined():
            return answer.reason
        case ProviderDown():
            return PROVIDER_DOWN
        case ProviderTimeout():
            return "unknown"
