"""A payment and its attempts.

    PENDING ──begin──► PROCESSING ──succeed──► SUCCEEDED
       ▲                 │   │  ▲
       │                 │   └──┼──lose_answer──► UNKNOWN ──succeed──► SUCCEEDED
       └──fail (retry)───┘      │                    │
                          fail (final)               └──fail──► PENDING or FAILED
                                └──► FAILED

At most one attempt is open (its outcome not known) at any time, and while one is, no other is begun: a second key at the
provider could be a second charge.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Final

from services.kit.money import Money
from services.payments.domain.retry import RetrySchedule
from services.payments.errors import AttemptNotAllowed


class PaymentState(StrEnum):
    """Where a payment stands."""

    PENDING = "pending"
    PROCESSING = "processing"
    UNKNOWN = "unknown"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class AttemptState(StrEnum):
    """Where an attempt stands."""

    STARTED = "started"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    UNKNOWN = "unknown"


_OPEN: Final = {AttemptState.STARTED, AttemptState.UNKNOWN}


@dataclass(frozen=True)
class Attempt:
    """One call to a provider, under one idempotency key.

    Attributes:
        number: from 1.
        idempotency_key: makes the provider charge once however often it is called; stored before the call.
        provider_reference: the provider's own id, empty while unknown.
        failure_reason: empty unless it failed.
        end_time: when its outcome became known.
    """

    number: int
    state: AttemptState
    idempotency_key: str
    start_time: datetime
    provider_reference: str = ""
    failure_reason: str = ""
    end_time: datetime | None = None


@dataclass(frozen=True)
class Payment:
    """Money to be collected from a customer.

    Attributes:
        id: `pay_…`.
        invoice_id: the invoice that it pays, may be empty.
        attempts: first to last.
        next_attempt_time: when the next attempt is due, None when none is.
        complete_time: when it succeeded or was given up.
    """

    id: str
    customer_id: str
    invoice_id: str
    amount: Money
    payment_method_id: str
    provider: str
    create_time: datetime
    state: PaymentState = PaymentState.PENDING
    attempts: tuple[Attempt, ...] = ()
    next_attempt_time: datetime | None = None
    complete_time: datetime | None = None

    @property
    def open_attempt(self) -> Attempt | None:
        """The attempt whose outcome is not known."""
        last = self.attempts[-1] if self.attempts else None
        return last if last and last.state in _OPEN else None

    @property
    def failure_reason(self) -> str:
        """Why the last attempt failed, empty if it did not."""
        return self.attempts[-1].failure_reason if self.attempts else ""

    def begin(self, now: datetime) -> "Payment":
        """Add the next attempt, with its key.

        Raises:
            AttemptNotAllowed: settled, or an attempt is open.
        """
        if self.state is not PaymentState.PENDING:
            raise AttemptNotAllowed(f"payment {self.id} is {self.state}: only a pending one is attempted")
        number = len(self.attempts) + 1
        attempt = Attempt(number, AttemptState.STARTED, f"{self.id}_{number}", now)
        return replace(self, state=PaymentState.PROCESSING, attempts=(*self.attempts, attempt), next_attempt_time=None)

    def succeed(self, reference: str, now: datetime) -> "Payment":
        """Record that the open attempt moved the money."""
        ended = self._end(AttemptState.SUCCEEDED, now, reference=reference)
        return replace(ended, state=PaymentState.SUCCEEDED, complete_time=now)

    def lose_answer(self) -> "Payment":
        """Record that the open attempt may or may not have moved the money."""
        attempt = replace(self._required_attempt(), state=AttemptState.UNKNOWN)
        return replace(self, state=PaymentState.UNKNOWN, attempts=(*self.attempts[:-1], attempt))

    def fail(self, reason: str, reference: str, now: datetime, schedule: RetrySchedule) -> "Payment":
        """Record that the open attempt surely moved no money: it is tried again, or given up, by its reason."""
        ended = self._end(AttemptState.FAILED, now, reference=reference, reason=reason)
        failures = [attempt.failure_reason for attempt in ended.attempts]
        delay = schedule.delay(reason, failures)
        if delay is None:
            return replace(ended, state=PaymentState.FAILED, complete_time=now)
        return replace(ended, state=PaymentState.PENDING, next_attempt_time=now + delay)

    def _end(self, state: AttemptState, now: datetime, *, reference: str, reason: str = "") -> "Payment":
        attempt = replace(
            self._required_attempt(), state=state, provider_reference=reference, failure_reason=reason, end_time=now
        )
        return replace(self, attempts=(*self.attempts[:-1], attempt))

    def _required_attempt(self) -> Attempt:
        if self.open_attempt is None:
            raise AttemptNotAllowed(f"payment {self.id} has no open attempt")
        return self.open_attempt


@dataclass(frozen=True)
class NewPayment:
    """What a caller asks to collect. The customer's default method pays when `payment_method_id` is empty."""

    customer_id: str
    invoice_id: str
    amount: Money
    payment_method_id: str
