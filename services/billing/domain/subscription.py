"""Subscriptions: a customer on a version of a plan."""

import enum
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from services.billing.domain.period import Period, Schedule
from services.kit.errors import InvalidArgument

MAX_BACKDATE: Final = timedelta(days=400)
PERIODS_AHEAD: Final = 2


class SubscriptionState(enum.StrEnum):
    """Where a subscription stands."""

    ACTIVE = "ACTIVE"
    CANCELLED = "CANCELLED"


@dataclass(frozen=True)
class Subscription:
    """A subscription. `period_number` is the first period, counted from 0, that is not invoiced."""

    id: str
    customer_id: str
    plan_id: str
    plan_version: int
    state: SubscriptionState
    start_time: datetime
    time_zone: str
    period_number: int
    create_time: datetime

    @property
    def schedule(self) -> Schedule:
        """Its periods."""
        return Schedule(self.start_time, self.time_zone)

    @property
    def current_period(self) -> Period:
        """The period that is running or is next to be billed."""
        return self.schedule.period(self.period_number)


def check_start(start: datetime, now: datetime) -> None:
    """Refuse a start that lies ahead or more than 400 days back.

    Raises:
        InvalidArgument: naming `subscription.start_time`.
    """
    if start > now:
        raise InvalidArgument.at(
            "subscription.start_time", f"{start.isoformat()} lies ahead; leave it out to start now"
        )
    if start < now - MAX_BACKDATE:
        raise InvalidArgument.at(
            "subscription.start_time", f"{start.isoformat()} is more than {MAX_BACKDATE.days} days back"
        )
