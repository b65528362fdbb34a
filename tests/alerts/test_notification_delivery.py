import logging
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from alerts_service import TRIES, AlertsService, signal
from standardwebhooks import Webhook
from webhook_receiver import Answer, Receiver

from meterscope.alerts.v1 import alert_service_pb2 as alerts_pb
from meterscope.alerts.v1 import notification_service_pb2 as pb
from tests.eventually import eventually

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"


def log_lines(caplog: pytest.LogCaptureFixture, alert: alerts_pb.Alert) -> list[logging.LogRecord]:
    return [
        record
        for record in caplog.records
        if record.name == "services.alerts.channels.log" and vars(record)["alert_id"] == alert.id
    ]


def test_an_alert_is_delivered_once_to_the_log_and_once_to_a_signed_webhook(
    service: AlertsService, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    hook = service.add_webhook(receiver.url("/once"))
    alert = service.raise_signal(data={"used": "100"}, labels={"meter": "requests"}, action_required=True)

    by_log, by_hook = service.ended(alert, "chn_log"), service.ended(alert, hook.id)
    assert (by_log.state, by_log.attempts) == (pb.NOTIFICATION_STATE_DELIVERED, 1)
    assert (by_hook.state, by_hook.attempts) == (pb.NOTIFICATION_STATE_DELIVERED, 1)
    assert (by_hook.last_result, by_hook.channel_kind) == ("HTTP 204", "webhook")
    assert by_hook.create_time.ToDatetime() <= by_hook.deliver_time.ToDatetime()

    [line] = log_lines(caplog, alert)
    assert line.levelno == logging.WARNING
    assert line.getMessage() == "alert: requests at 100 %"
    assert vars(line)["customer_id"] == "cus_1"

    [request] = receiver.received("/once")
    assert request.headers["webhook-id"] == by_hook.id
    assert request.headers["content-type"] == "application/json"
    payload = Webhook(hook.secret).verify(request.body, request.headers)
    assert payload["type"] == "alert.firing"
    assert payload["data"] == {
        "id": alert.id,
        "type": "usage_threshold",
        "severity": "WARNING",
        "state": "FIRING",
        "title": "requests at 100 %",
        "message": "cus_1 has used 100 of 100 requests",
        "data": {"used": "100"},
        "action_required": True,
        "customer_id": "cus_1",
        "fingerprint": alert.fingerprint,
        "labels": {"meter": "requests"},
        "starts_at": alert.starts_at.ToJsonString(),
        "links": dict(alert.links),
        "signal_count": "1",
        "service": "usage",
        "trace_id": alert.trace_id,
    }


def test_a_signal_that_joins_notifies_nobody_again(service: AlertsService, receiver: Receiver) -> None:
    hook = service.add_webhook(receiver.url("/joined"))
    alert = service.raise_signal(fingerprint="joined")
    service.ended(alert, hook.id)
    service.raise_signal(fingerprint="joined")
    later = service.raise_signal()
    service.ended(later, hook.id)
    assert [request.alert_id for request in receiver.received("/joined")] == [alert.id, later.id]
    assert len(service.notifications_of(alert, hook.id)) == 1


def test_the_trace_goes_on_to_the_receiver_and_the_baggage_does_not(service: AlertsService, receiver: Receiver) -> None:
    hook = service.add_webhook(receiver.url("/traced"))
    trace = (("traceparent", f"00-{TRACE_ID}-b7ad6b7169203331-01"), ("baggage", "customer_id=cus_1"))
    service.ended(service.alerts.RaiseSignal(signal(), metadata=trace), hook.id)
    [request] = receiver.received("/traced")
    assert request.headers["traceparent"].split("-")[1] == TRACE_ID
    assert "baggage" not in request.headers


def test_a_failed_webhook_is_tried_again_under_the_same_id(service: AlertsService, receiver: Receiver) -> None:
    receiver.will_answer("/busy", Answer(503), Answer(200, body=b"taken"))
    hook = service.add_webhook(receiver.url("/busy"))
    ended = service.ended(service.raise_signal(), hook.id)
    assert (ended.state, ended.attempts) == (pb.NOTIFICATION_STATE_DELIVERED, 2)
    assert ended.last_result == "HTTP 200"
    first, second = receiver.received("/busy")
    assert first.headers["webhook-id"] == second.headers["webhook-id"] == ended.id
    assert first.body == second.body


@pytest.mark.parametrize("as_date", [False, True])
def test_the_receiver_says_when_to_come_back(service: AlertsService, receiver: Receiver, *, as_date: bool) -> None:
    path = f"/later/{as_date}"
    came: list[datetime] = []
    # A date has whole seconds: four ahead are more than three away, of which the first attempt takes a part.
    after = format_datetime(datetime.now(UTC) + timedelta(seconds=4), usegmt=True) if as_date else "2"
    least = 1.5 if as_date else 2.0
    receiver.will_answer(
        path,
        Answer(429, {"Retry-After": after}, before=lambda: came.append(datetime.now(UTC))),
        Answer(204, before=lambda: came.append(datetime.now(UTC))),
    )
    hook = service.add_webhook(receiver.url(path))
    ended = service.ended(service.raise_signal(), hook.id)
    assert (ended.state, ended.attempts) == (pb.NOTIFICATION_STATE_DELIVERED, 2)
    assert (came[1] - came[0]).total_seconds() >= least


def test_a_receiver_that_is_gone_for_good_is_given_up(service: AlertsService, receiver: Receiver) -> None:
    receiver.will_answer("/gone", Answer(410))
    hook = service.add_webhook(receiver.url("/gone"))
    ended = service.ended(service.raise_signal(), hook.id)
    assert (ended.state, ended.attempts) == (pb.NOTIFICATION_STATE_DEAD, 1)
    assert ended.last_result == "HTTP 410"
    assert not ended.HasField("deliver_time")


def test_after_its_attempts_a_notification_is_dead(service: AlertsService, receiver: Receiver) -> None:
    receiver.will_answer("/broken", *[Answer(500)] * TRIES)
    hook = service.add_webhook(receiver.url("/broken"))
    ended = service.ended(service.raise_signal(), hook.id)
    assert (ended.state, ended.attempts) == (pb.NOTIFICATION_STATE_DEAD, TRIES)
    assert len(receiver.received("/broken")) == TRIES


def test_a_redirect_is_not_followed(service: AlertsService, receiver: Receiver) -> None:
    elsewhere = Answer(307, {"Location": receiver.url("/elsewhere")})
    receiver.will_answer("/moved", *[elsewhere] * TRIES)
    hook = service.add_webhook(receiver.url("/moved"))
    ended = service.ended(service.raise_signal(), hook.id)
    assert ended.state == pb.NOTIFICATION_STATE_DEAD
    assert ended.last_result == "HTTP 307"
    assert not receiver.received("/elsewhere")


def test_a_receiver_that_does_not_listen_is_tried_again(service: AlertsService) -> None:
    gone = Receiver()
    gone.close()
    hook = service.add_webhook(gone.url("/closed"))
    ended = service.ended(service.raise_signal(), hook.id)
    assert (ended.state, ended.attempts) == (pb.NOTIFICATION_STATE_DEAD, TRIES)
    assert ended.last_result.startswith("no answer")


def test_one_channel_s_failure_holds_up_no_other(service: AlertsService, receiver: Receiver) -> None:
    receiver.will_answer("/slow", Answer(503, {"Retry-After": "600"}))
    slow, quick = service.add_webhook(receiver.url("/slow")), service.add_webhook(receiver.url("/quick"))
    alert = service.raise_signal()
    assert service.ended(alert, quick.id).state == pb.NOTIFICATION_STATE_DELIVERED
    failed = eventually(lambda: next(iter(n for n in service.notifications_of(alert, slow.id) if n.last_result), None))
    assert (failed.state, failed.last_result) == (pb.NOTIFICATION_STATE_PENDING, "HTTP 503")


def test_notifications_are_listed_newest_first_in_pages(service: AlertsService, receiver: Receiver) -> None:
    hook = service.add_webhook(receiver.url("/listed"))
    raised = [service.raise_signal().id for _ in range(3)]
    seen: list[str] = []
    token = ""
    while True:
        request = pb.ListNotificationsRequest(channel_id=hook.id, page_size=2, page_token=token)
        page = service.notifications.ListNotifications(request)
        seen += [notification.alert_id for notification in page.notifications]
        if not (token := page.next_page_token):
            break
    assert seen == raised[::-1]


def test_no_secret_is_logged_while_delivering(
    service: AlertsService, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    receiver.will_answer("/quiet", Answer(500))
    hook = service.add_webhook(receiver.url("/quiet"))
    service.ended(service.raise_signal(), hook.id)
    assert hook.secret not in "".join(str(vars(record)) for record in caplog.records)
