"""A notification: one alert on its way through one channel, and what an attempt to send it leads to."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum
from typing import Final

from services.alerts.domain.channel import ChannelKind

MAX_RESULT: Final = 256
# A receiver may ask for a later attempt, but not keep a notification waiting for ever.
LONGEST_WAIT: Final = timedelta(days=1)
_MOST_DOUBLINGS: Final = 32


class NotificationState(Enum):
    """Where a notification stands."""

    PENDING = "PENDING"
    DELIVERED = "DELIVERED"
    DEAD = "DEAD"


class Verdict(Enum):
    """What an attempt came to."""

    TAKEN = "TAKEN"
    FAILED = "FAILED"
    REFUSED = "REFUSED"


@dataclass(frozen=True)
class Outcome:
    """The end of one attempt.

    Attributes:
        verdict: TAKEN by the receiver; FAILED, to be tried again; REFUSED for good.
        result: one line for the delivery log, such as `HTTP 204`.
        retry_after: how long the receiver asked to be left alone.
    """

    verdict: Verdict
    result: str
    retry_after: timedelta | None = None


@dataclass(frozen=True)
class RetryPolicy:
    """How often and when a failed attempt is repeated: `first` doubles with each attempt up to `longest`."""

    attempts: int
    first: timedelta
    longest: timedelta

    def wait(self, attempts: int, retry_after: timedelta | None) -> timedelta:
        """Return the time until the next attempt after `attempts` failed ones; the receiver's wish may lengthen it."""
        own = min(self.longest, self.first * (1 << min(attempts - 1, _MOST_DOUBLINGS)))
        return min(max(own, retry_after or own), max(LONGEST_WAIT, own))


@dataclass(frozen=True)
class Notification:
    """One alert on its way through one channel. Its id is what receivers know it by, however often it is sent."""

    id: str
    alert_id: str
    channel_id: str
    channel_kind: ChannelKind
    state: NotificationState
    attempts: int
    last_result: str
    create_time: datetime
    deliver_time: datetime | None

    def after(self, outcome: Outcome, policy: RetryPolicy, now: datetime) -> "Notification":
        """Return what it is after an attempt, which `attempts` already counts: delivered, dead or still pending."""
        tried = replace(self, last_result=outcome.result[:MAX_RESULT])
        if outcome.verdict is Verdict.TAKEN:
            return replace(tried, state=NotificationState.DELIVERED, deliver_time=now)
        if outcome.verdict is Verdict.REFUSED or self.attempts >= policy.attempts:
            return replace(tried, state=NotificationState.DEAD)
        return tried
