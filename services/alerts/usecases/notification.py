"""Sending notifications and showing what came of them."""

import logging
import random
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Final

from opentelemetry import trace

from services.alerts import store
from services.alerts.channels.base import Message, Sender
from services.alerts.domain.channel import ChannelKind
from services.alerts.domain.notification import Notification, NotificationState, Outcome, RetryPolicy
from services.alerts.metrics import Instruments
from services.alerts.usecases import page
from services.kit import paging
from services.kit.db import Database
from services.kit.exemplars import KEEP
from services.kit.outbox import Job, Postpone

_JITTER: Final = 0.1

_log = logging.getLogger(__name__)


class Notifications:
    """The delivery log."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def list(
        self, *, alert_id: str, channel_id: str, page_size: int, page_token: str
    ) -> tuple[Sequence[Notification], str]:
        """Return a page of notifications, newest first, and the next page's token. Empty filters pass everything.

        Raises:
            InvalidArgument: names the field that is wrong.
        """
        filters = page.filters(alert_id=alert_id, channel_id=channel_id)
        size = paging.page_size(page_size)
        before = page.position(page_token, filters)
        with self._database.transaction() as conn:
            found = store.list_notifications(conn, filters, before=before, limit=size + 1)
        return page.cut(found, size, filters)


class Delivery:
    """Sends notifications: at least once, always under the same id."""

    def __init__(
        self,
        database: Database,
        *,
        senders: Mapping[ChannelKind, Sender],
        policy: RetryPolicy,
        instruments: Instruments,
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._senders = senders
        self._policy = policy
        self._instruments = instruments
        self._clock = clock

    def attempt(self, job: Job) -> None:
        """Make one attempt for `job.payload["notification_id"]`: count it, send with no transaction open, record it.

        A worker that dies between sending and recording leaves the job to another, which sends again.

        Raises:
            Postpone: the attempt failed and there will be another.
        """
        with self._database.transaction() as conn:
            job.fence(conn)
            delivery = store.begin_attempt(conn, job.payload["notification_id"])
        if delivery is None:
            return
        begun = delivery.notification
        message = Message(begun, delivery.alert, delivery.channel, delivery.secret, self._clock())
        outcome = self._senders[begun.channel_kind].send(message)
        ended = begun.after(outcome, self._policy, self._clock())
        with self._database.transaction() as conn:
            if ended.state is NotificationState.PENDING:
                job.fence(conn)
            else:
                job.finish(conn)
            store.record_attempt(conn, ended)
        self._tell(ended)
        if ended.state is NotificationState.PENDING:
            raise self._again(ended, outcome)

    def _tell(self, ended: Notification) -> None:
        # They are few, and somebody will ask why one was late: their durations lead to their traces.
        trace.get_current_span().set_attribute(KEEP, True)
        self._instruments.count(ended, self._clock())
        if ended.state is not NotificationState.DELIVERED:
            _log.warning(
                "notification %s",
                "given up" if ended.state is NotificationState.DEAD else "failed, to be tried again",
                extra={
                    "notification_id": ended.id,
                    "alert_id": ended.alert_id,
                    "channel_id": ended.channel_id,
                    "attempts": ended.attempts,
                    "result": ended.last_result,
                },
            )

    def _again(self, ended: Notification, outcome: Outcome) -> Postpone:
        # Never earlier than the receiver asked; the jitter keeps a recovering one from being hit by all at once.
        wait = self._policy.wait(ended.attempts, outcome.retry_after) * random.uniform(1, 1 + _JITTER)
        return Postpone(wait, ended.last_result)
