from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import grpc
import pytest
from alerts_service import AlertsService, refusal, signal
from google.protobuf.timestamp_pb2 import Timestamp

from meterscope.alerts.v1 import alert_service_pb2 as pb
from services.kit.idempotency import MAX_REQUEST_ID_BYTES

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
TRACE_PARENT = (("traceparent", f"00-{TRACE_ID}-b7ad6b7169203331-01"),)


def test_a_signal_opens_an_alert_that_says_what_it_said(server: AlertsService) -> None:
    raised = server.raise_signal(
        data={"used": "100", "limit": "100", "parts": [1, {"a": None}]}, labels={"meter": "requests"}
    )
    assert raised.id.startswith("alr_")
    assert (raised.type, raised.title) == ("usage_threshold", "requests at 100 %")
    assert (raised.severity, raised.state) == (pb.SEVERITY_WARNING, pb.ALERT_STATE_FIRING)
    assert raised.data["used"] == "100"
    assert raised.labels == {"meter": "requests"}
    assert raised.signal_count == 1
    assert not raised.HasField("ends_at")
    assert server.alerts.GetAlert(pb.GetAlertRequest(alert_id=raised.id)) == raised


def test_without_a_time_an_alert_begins_now(server: AlertsService) -> None:
    before = datetime.now(UTC)
    assert before <= server.raise_signal().starts_at.ToDatetime(UTC) <= datetime.now(UTC)


def test_an_alert_links_to_its_trace_and_the_dashboard(server: AlertsService) -> None:
    raised = server.alerts.RaiseSignal(signal(), metadata=TRACE_PARENT)
    assert raised.trace_id == TRACE_ID
    assert raised.links == {
        "trace": f"http://jaeger.test:16686/trace/{TRACE_ID}",
        "dashboard": "http://grafana.test",
    }


def test_signals_with_one_fingerprint_join_one_alert_and_notify_once(server: AlertsService) -> None:
    def raise_one(number: int) -> pb.Alert:
        return server.raise_signal(fingerprint="the same", request_id=f"concurrent-{number}")

    with ThreadPoolExecutor(20) as callers:
        answers = list(callers.map(raise_one, range(20)))
    assert len({alert.id for alert in answers}) == 1
    assert sorted(alert.signal_count for alert in answers) == list(range(1, 21))
    kept = server.alerts.GetAlert(pb.GetAlertRequest(alert_id=answers[0].id))
    assert kept.signal_count == 20
    assert [notification.channel_id for notification in server.notifications_of(kept)] == ["chn_log"]


def test_the_same_request_gets_the_first_answer_and_counts_once(server: AlertsService) -> None:
    request = signal()
    first = server.alerts.RaiseSignal(request)
    server.raise_signal(fingerprint=request.fingerprint)
    assert server.alerts.RaiseSignal(request) == first
    assert server.alerts.GetAlert(pb.GetAlertRequest(alert_id=first.id)).signal_count == 2


def test_a_request_id_is_refused_for_another_signal(server: AlertsService) -> None:
    request = signal()
    server.alerts.RaiseSignal(request)
    request.title = "something else"
    refused = refusal(lambda: server.alerts.RaiseSignal(request))
    assert refused.code is grpc.StatusCode.ALREADY_EXISTS
    assert request.request_id in refused.details


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"type": ""}, "type"),
        ({"type": "t" * 129}, "type"),
        ({"severity": pb.SEVERITY_UNSPECIFIED}, "severity"),
        ({"severity": 9}, "severity"),
        ({"title": ""}, "title"),
        ({"title": "ü" * 129}, "title"),
        ({"title": "nul\0"}, "title"),
        ({"message": "m" * (16 * 1024 + 1)}, "message"),
        ({"fingerprint": ""}, "fingerprint"),
        ({"fingerprint": "f" * 513}, "fingerprint"),
        ({"customer_id": "c" * 257}, "customer_id"),
        ({"service": ""}, "service"),
        ({"request_id": ""}, "request_id"),
        ({"request_id": "r" * (MAX_REQUEST_ID_BYTES + 1)}, "request_id"),
        ({"labels": {"": "nameless"}}, "labels"),
        ({"labels": {"a": "\0"}}, "labels['a']"),
        ({"labels": {str(number): "" for number in range(65)}}, "labels"),
        ({"data": {"a": ["\0"]}}, "data.a[0]"),
        ({"data": {"a\0": 1}}, "data"),
        ({"data": {"a": float("nan")}}, "data"),
        ({"data": {"a": "x" * (64 * 1024)}}, "data"),
    ],
)
def test_a_wrong_field_is_named(server: AlertsService, fields: dict[str, object], named: str) -> None:
    refused = refusal(lambda: server.raise_signal(**fields))
    assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refused.details.startswith(named)


def test_a_time_that_is_none_is_refused(server: AlertsService) -> None:
    request = signal()
    request.starts_at.CopyFrom(Timestamp(seconds=10**15))
    refused = refusal(lambda: server.alerts.RaiseSignal(request))
    assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refused.details.startswith("starts_at")


@pytest.mark.parametrize("alert_id", ["alr_none", "nul\0", ""])
def test_an_alert_that_is_not_there_is_not_found(server: AlertsService, alert_id: str) -> None:
    refused = refusal(lambda: server.alerts.GetAlert(pb.GetAlertRequest(alert_id=alert_id)))
    expected = grpc.StatusCode.NOT_FOUND if alert_id == "alr_none" else grpc.StatusCode.INVALID_ARGUMENT
    assert refused.code is expected


def page_through(ask: Callable[[str], pb.ListAlertsResponse]) -> list[list[str]]:
    """Return the ids of all pages."""
    pages, token = [], ""
    while True:
        page = ask(token)
        pages.append([alert.id for alert in page.alerts])
        if not (token := page.next_page_token):
            return pages


def test_alerts_are_listed_newest_first_in_pages(server: AlertsService) -> None:
    raised = [server.raise_signal(customer_id="cus_paged").id for _ in range(5)]

    def ask(token: str) -> pb.ListAlertsResponse:
        return server.alerts.ListAlerts(pb.ListAlertsRequest(customer_id="cus_paged", page_size=2, page_token=token))

    newest_first = raised[::-1]
    assert page_through(ask) == [newest_first[:2], newest_first[2:4], newest_first[4:]]


def test_alerts_are_filtered_by_customer_type_and_state(server: AlertsService) -> None:
    wanted = server.raise_signal(customer_id="cus_filtered", type="payment_failed").id
    server.raise_signal(customer_id="cus_filtered", type="invoice_paid")
    server.raise_signal(customer_id="cus_other", type="payment_failed")
    firing = pb.ListAlertsRequest(customer_id="cus_filtered", type="payment_failed", state=pb.ALERT_STATE_FIRING)
    assert [alert.id for alert in server.alerts.ListAlerts(firing).alerts] == [wanted]
    firing.state = pb.ALERT_STATE_RESOLVED
    assert not server.alerts.ListAlerts(firing).alerts


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"page_size": -1}, "page_size"),
        ({"page_token": "nonsense"}, "page_token"),
        ({"customer_id": "\0"}, "customer_id"),
        ({"state": 9}, "state"),
    ],
)
def test_a_wrong_question_for_a_list_is_named(server: AlertsService, fields: dict[str, object], named: str) -> None:
    request = pb.ListAlertsRequest(**fields)  # type: ignore[arg-type]
    refused = refusal(lambda: server.alerts.ListAlerts(request))
    assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refused.details.startswith(named)


def test_a_page_token_is_bound_to_its_filters(server: AlertsService) -> None:
    for _ in range(2):
        server.raise_signal(customer_id="cus_token")
    page = server.alerts.ListAlerts(pb.ListAlertsRequest(customer_id="cus_token", page_size=1))
    refused = refusal(
        lambda: server.alerts.ListAlerts(pb.ListAlertsRequest(customer_id="cus_1", page_token=page.next_page_token))
    )
    assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
