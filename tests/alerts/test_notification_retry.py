from datetime import UTC, datetime, timedelta

import pytest

from services.alerts.domain.channel import ChannelKind
from services.alerts.domain.notification import Notification, NotificationState, Outcome, RetryPolicy, Verdict

NOW = datetime(2026, 1, 1, tzinfo=UTC)
POLICY = RetryPolicy(attempts=3, first=timedelta(seconds=5), longest=timedelta(hours=6))


def after(attempts: int, outcome: Outcome) -> Notification:
    pending = NotificationState.PENDING
    tried = Notification("ntf_1", "alr_1", "chn_1", ChannelKind.WEBHOOK, pending, attempts, "", NOW, None)
    return tried.after(outcome, POLICY, NOW)


# 5 s doubled with each attempt: 5, 10, 20, …, 5 · 2¹² = 20,480 s, then six hours.
@pytest.mark.parametrize(("attempts", "seconds"), [(1, 5), (2, 10), (3, 20), (13, 20_480), (14, 21_600), (99, 21_600)])
def test_the_wait_doubles_up_to_six_hours(attempts: int, seconds: int) -> None:
    assert POLICY.wait(attempts, None) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("asked", "waits"),
    [
        (timedelta(seconds=90), timedelta(seconds=90)),
        (timedelta(seconds=1), timedelta(seconds=5)),
        (timedelta(), timedelta(seconds=5)),
        (timedelta(days=400), timedelta(days=1)),
    ],
)
def test_the_receiver_may_lengthen_the_wait_up_to_a_day(asked: timedelta, waits: timedelta) -> None:
    assert POLICY.wait(1, asked) == waits


def test_what_was_taken_is_delivered() -> None:
    ended = after(3, Outcome(Verdict.TAKEN, "HTTP 204"))
    assert (ended.state, ended.last_result, ended.deliver_time) == (NotificationState.DELIVERED, "HTTP 204", NOW)


@pytest.mark.parametrize(
    ("attempts", "verdict", "state"),
    [
        (2, Verdict.FAILED, NotificationState.PENDING),
        (3, Verdict.FAILED, NotificationState.DEAD),
        (1, Verdict.REFUSED, NotificationState.DEAD),
    ],
)
def test_what_failed_is_pending_until_its_last_attempt(
    attempts: int, verdict: Verdict, state: NotificationState
) -> None:
    ended = after(attempts, Outcome(verdict, "HTTP 500"))
    assert (ended.state, ended.deliver_time) == (state, None)


def test_a_long_result_is_cut() -> None:
    assert len(after(1, Outcome(Verdict.FAILED, "x" * 1000)).last_result) == 256
