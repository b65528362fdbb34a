from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from services.kit.money import Money
from services.payments.domain.payment import AttemptState, Payment, PaymentState
from services.payments.domain.retry import RetrySchedule
from services.payments.errors import AttemptNotAllowed

NOW = datetime(2026, 3, 1, 10, tzinfo=UTC)
DAY = timedelta(days=1)
SCHEDULE = RetrySchedule({"insufficient_funds": [DAY, 3 * DAY], "provider_down": [timedelta(seconds=2)]})
PENDING = Payment(
    id="pay_1",
    customer_id="cus_1",
    invoice_id="inv_1",
    amount=Money(Decimal(100), "INR"),
    payment_method_id="pm_1",
    provider="sandbox",
    create_time=NOW,
)


def test_each_attempt_has_a_key_of_its_own() -> None:
    first = PENDING.begin(NOW)
    second = first.fail("insufficient_funds", "ch_1", NOW, SCHEDULE).begin(NOW + DAY)

    assert [attempt.number for attempt in second.attempts] == [1, 2]
    assert len({attempt.idempotency_key for attempt in second.attempts}) == 2


def test_a_payment_that_succeeded_is_complete() -> None:
    paid = PENDING.begin(NOW).succeed("ch_1", NOW + DAY)

    assert paid.state is PaymentState.SUCCEEDED
    assert paid.complete_time == NOW + DAY
    assert paid.attempts[-1].provider_reference == "ch_1"
    assert paid.open_attempt is None


def test_a_retried_payment_waits_for_its_next_attempt() -> None:
    waiting = PENDING.begin(NOW).fail("insufficient_funds", "ch_1", NOW, SCHEDULE)

    assert waiting.state is PaymentState.PENDING
    assert waiting.next_attempt_time == NOW + DAY
    assert waiting.failure_reason == "insufficient_funds"
    assert waiting.begin(NOW + DAY).next_attempt_time is None


def test_a_payment_is_given_up_when_its_retries_are_used_up() -> None:
    payment = PENDING
    for _ in range(3):
        payment = payment.begin(NOW).fail("insufficient_funds", "", NOW, SCHEDULE)

    assert payment.state is PaymentState.FAILED
    assert payment.complete_time == NOW
    assert payment.next_attempt_time is None


def test_an_outage_uses_up_no_retry_of_the_customer() -> None:
    assert SCHEDULE.delay("insufficient_funds", ["provider_down", "insufficient_funds"]) == DAY
    assert SCHEDULE.delay("insufficient_funds", ["insufficient_funds", "insufficient_funds"]) == 3 * DAY


def test_a_reason_without_a_schedule_is_final() -> None:
    assert PENDING.begin(NOW).fail("card_expired", "ch_1", NOW, SCHEDULE).state is PaymentState.FAILED


@pytest.mark.parametrize("state", [state for state in PaymentState if state is not PaymentState.PENDING])
def test_only_a_pending_payment_is_attempted(state: PaymentState) -> None:
    with pytest.raises(AttemptNotAllowed):
        replace(PENDING, state=state).begin(NOW)


def test_a_lost_answer_keeps_the_attempt_open_until_it_is_settled() -> None:
    unknown = PENDING.begin(NOW).lose_answer()

    assert unknown.state is PaymentState.UNKNOWN
    assert unknown.open_attempt == unknown.attempts[-1]
    assert unknown.attempts[-1].state is AttemptState.UNKNOWN
    assert unknown.succeed("ch_1", NOW).state is PaymentState.SUCCEEDED
    assert unknown.fail("card_expired", "ch_1", NOW, SCHEDULE).state is PaymentState.FAILED


def test_an_attempt_is_settled_once() -> None:
    paid = PENDING.begin(NOW).succeed("ch_1", NOW)

    with pytest.raises(AttemptNotAllowed):
        paid.fail("card_expired", "ch_1", NOW, SCHEDULE)
