"""Taking signals in and showing the alerts that they made."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

import sqlalchemy as sa

from meterscope.alerts.v1.alert_service_pb2 import Alert as AlertMessage
from meterscope.alerts.v1.alert_service_pb2 import RaiseSignalRequest
from services.alerts import store
from services.alerts.convert import alert_to_proto
from services.alerts.domain.alert import Alert, AlertState, LinkBases, Signal
from services.alerts.domain.notification import Notification, NotificationState
from services.alerts.domain.text import check_text
from services.alerts.errors import AlertNotFound
from services.alerts.usecases import page
from services.kit import paging
from services.kit.db import Database
from services.kit.idempotency import MAX_REQUEST_ID_BYTES, once
from services.kit.ids import new_id
from services.kit.outbox import Outbox

DELIVER: Final = "deliver"


class Alerts:
    """Signals in, alerts out."""

    def __init__(self, database: Database, *, links: LinkBases, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._outbox = Outbox(database)
        self._links = links
        self._clock = clock

    def raise_signal(self, signal: Signal, request: RaiseSignalRequest) -> AlertMessage:
        """Join the open alert with the signal's fingerprint, or open one and notify every channel.

        Args:
            signal: what happened.
            request: what it was decoded from: the same `request_id` again gets the first answer.

        Raises:
            InvalidArgument: names the field that is wrong.
            RequestIdReused: the `request_id` came with another signal before.
        """
        check_text("request_id", request.request_id, least=1, most=MAX_REQUEST_ID_BYTES)
        signal.check()
        with self._database.transaction() as conn:
            return once(
                conn,
                method="AlertService.RaiseSignal",
                request_id=request.request_id,
                request=request,
                response_type=AlertMessage,
                act=lambda: alert_to_proto(self._join_or_open(conn, signal), self._links),
            )

    def get(self, alert_id: str) -> Alert:
        """Return an alert.

        Raises:
            AlertNotFound: there is none.
        """
        check_text("alert_id", alert_id, least=1, most=page.MAX_ID)
        with self._database.transaction() as conn:
            alert = store.find_alert(conn, alert_id)
        if alert is None:
            raise AlertNotFound(f"there is no alert {alert_id!r}", metadata={"alert_id": alert_id})
        return alert

    def list(
        self, *, customer_id: str, type_: str, state: AlertState | None, page_size: int, page_token: str
    ) -> tuple[Sequence[Alert], str]:
        """Return a page of alerts, newest first, and the next page's token. Empty filters pass everything.

        Raises:
            InvalidArgument: names the field that is wrong.
        """
        filters = page.filters(customer_id=customer_id, type=type_, state="" if state is None else state.value)
        size = paging.page_size(page_size)
        before = page.position(page_token, filters)
        with self._database.transaction() as conn:
            found = store.list_alerts(conn, filters, before=before, limit=size + 1)
        return page.cut(found, size, filters)

    def count_open(self) -> dict[tuple[str, str], int]:
        """Return how many alerts are open, by severity and type."""
        with self._database.transaction() as conn:
            return store.count_open_alerts(conn)

    def _join_or_open(self, conn: sa.Connection, signal: Signal) -> Alert:
        candidate = Alert(new_id("alr"), signal, AlertState.FIRING, signal_count=1, ends_at=None)
        alert = store.insert_or_join_alert(conn, candidate)
        if alert.id == candidate.id:
            self._notify(conn, alert)
        return alert

    def _notify(self, conn: sa.Connection, alert: Alert) -> None:
        now = self._clock()
        ids = []
        for channel in store.list_channels(conn):
            notification = Notification(
                id=new_id("ntf"),
                alert_id=alert.id,
                channel_id=channel.id,
                channel_kind=channel.kind,
                state=NotificationState.PENDING,
                attempts=0,
                last_result="",
                create_time=now,
                deliver_time=None,
            )
            store.insert_notification(conn, notification, alert.signal.customer_id)
            ids.append(notification.id)
        self._outbox.put_all(conn, job=DELIVER, entries=[("", {"notification_id": id_}) for id_ in ids])
