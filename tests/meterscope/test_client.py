"""The client SDK against a real gRPC server that loses answers and refuses calls."""

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import grpc
import pytest
from fake_usage import Failure, RunningUsage

from meterscope import Client, ClientClosed, Event, Outcome, QueueFull, Result, Undelivered

StartUsage = Callable[..., RunningUsage]
NOW = datetime(2026, 10, 1, 12, 0, tzinfo=UTC)
SOON = timedelta(milliseconds=200)


def event(number: int = 1, **given: Any) -> Event:
    fields: dict[str, Any] = {"type": "t", "customer_key": "acme", "source": "test", "id": f"e{number}", "time": NOW}
    return Event(**(fields | given))


def test_a_batch_leaves_when_it_is_full(start_usage: StartUsage) -> None:
    usage = start_usage()
    with Client(usage.address, source="s", max_batch_events=3, linger=timedelta(minutes=1)) as client:
        for _ in range(3):
            client.track("t", customer_key="acme")
        assert usage.servicer.arrived.acquire(timeout=5)
        assert [len(call.events) for call in usage.servicer.calls] == [3]


def test_a_batch_leaves_when_its_bytes_are_full(start_usage: StartUsage) -> None:
    usage = start_usage()
    with Client(usage.address, source="s", max_batch_bytes=250, linger=timedelta(minutes=1)) as client:
        for number in range(4):
            client.enqueue(event(number, attributes={"path": "x" * 100}))
        client.flush()
    assert [len(call.events) for call in usage.servicer.calls] == [1, 1, 1, 1]


def test_a_lonely_event_leaves_after_the_linger(start_usage: StartUsage) -> None:
    usage = start_usage()
    with Client(usage.address, source="s", linger=timedelta(milliseconds=20)) as client:
        client.track("t", customer_key="acme")
        assert usage.servicer.arrived.acquire(timeout=5)


def test_a_retry_carries_the_same_ids_and_counts_once(start_usage: StartUsage) -> None:
    lost_answer = Failure(grpc.StatusCode.UNAVAILABLE, stored=True)
    usage = start_usage(lost_answer, Failure(grpc.StatusCode.UNAVAILABLE))
    results: list[Result] = []
    with Client(usage.address, source="s", on_results=results.extend) as client:
        tracked = client.track("t", customer_key="acme")
    first, second, third = usage.servicer.calls
    assert first == second == third
    assert first.events[0].id == tracked.id
    assert len(usage.servicer.stored) == 1
    assert [(result.event, result.outcome) for result in results] == [(tracked, Outcome.DUPLICATE)]


@pytest.mark.parametrize(
    "code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNKNOWN]
)
def test_an_unknown_outcome_is_tried_again(start_usage: StartUsage, code: grpc.StatusCode) -> None:
    usage = start_usage(Failure(code, stored=True))
    with Client(usage.address) as client:
        (result,) = client.ingest([event()])
    assert result.outcome is Outcome.DUPLICATE


def test_an_answer_slower_than_the_deadline_is_tried_again(start_usage: StartUsage) -> None:
    usage = start_usage(is_open=False)

    def open_at_the_second_call() -> None:
        usage.servicer.arrived.acquire(timeout=10)
        usage.servicer.arrived.acquire(timeout=10)
        usage.servicer.gate.set()

    opener = threading.Thread(target=open_at_the_second_call)
    opener.start()
    with Client(usage.address, timeout=SOON) as client:
        (result,) = client.ingest([event()])
    opener.join()
    assert result.outcome in {Outcome.ACCEPTED, Outcome.DUPLICATE}
    assert len(usage.servicer.stored) == 1


def test_the_server_is_given_the_time_it_asks_for(start_usage: StartUsage) -> None:
    usage = start_usage(Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, retry_after=0.4))
    started = time.monotonic()
    with Client(usage.address) as client:
        client.ingest([event()])
    assert time.monotonic() - started >= 0.4


def test_a_server_that_comes_later_gets_everything(start_usage: StartUsage) -> None:
    usage = start_usage()
    usage.server.stop(None).wait(5)
    with Client(usage.address, source="s") as client:
        for number in range(10):
            client.enqueue(event(number))
        revived = start_usage(address=usage.address)
        client.flush(timedelta(seconds=20))
    assert len(revived.servicer.stored) == 10


def test_results_come_back_in_the_order_of_the_events(start_usage: StartUsage) -> None:
    usage = start_usage()
    events = [event(1), event(2, type="bad"), event(1), event(3)]
    with Client(usage.address, max_batch_events=2) as client:
        results = client.ingest(events)
        assert client.counts == {Outcome.ACCEPTED: 2, Outcome.REJECTED: 1, Outcome.DUPLICATE: 1}
    assert [result.event for result in results] == events
    assert [result.outcome.name for result in results] == ["ACCEPTED", "REJECTED", "DUPLICATE", "ACCEPTED"]
    assert results[1].reason == "X"


def test_what_the_server_refuses_comes_back_with_the_next_call(start_usage: StartUsage) -> None:
    usage = start_usage(Failure(grpc.StatusCode.UNAUTHENTICATED))
    client = Client(usage.address)
    client.enqueue(event(1))
    with pytest.raises(Undelivered, match="UNAUTHENTICATED: made to fail") as raised:
        client.flush()
    assert raised.value.events == (event(1),)
    assert [result.outcome for result in client.ingest(raised.value.events)] == [Outcome.ACCEPTED]
    client.close()


def test_ingest_hands_back_what_was_answered_and_what_was_not(start_usage: StartUsage) -> None:
    usage = start_usage(Failure(grpc.StatusCode.OK), Failure(grpc.StatusCode.PERMISSION_DENIED))
    with Client(usage.address, max_batch_events=1) as client, pytest.raises(Undelivered) as raised:
        client.ingest([event(1), event(2), event(3)])
    assert raised.value.events == (event(2), event(3))
    assert [result.event for result in raised.value.results] == [event(1)]


def test_closing_hands_back_what_could_not_be_delivered(start_usage: StartUsage) -> None:
    usage = start_usage()
    usage.server.stop(None).wait(5)
    client = Client(usage.address, source="s", max_batch_events=2)
    events = [event(number) for number in range(5)]
    for one in events:
        client.enqueue(one)
    with pytest.raises(Undelivered) as raised:
        client.close(timeout=SOON)
    assert list(raised.value.events) == events
    client.close()


def test_retries_end_after_the_time_given_to_them(start_usage: StartUsage) -> None:
    usage = start_usage()
    usage.server.stop(None).wait(5)
    with (
        Client(usage.address, retry_for=SOON) as client,
        pytest.raises(Undelivered, match="1 event not acknowledged: UNAVAILABLE"),
    ):
        client.ingest([event()])


def test_a_full_queue_makes_the_caller_wait(start_usage: StartUsage) -> None:
    usage = start_usage(is_open=False)
    with Client(usage.address, source="s", max_queued_events=2, max_batch_events=1) as client:
        client.enqueue(event(1))
        client.enqueue(event(2))
        with pytest.raises(QueueFull):
            client.enqueue(event(3), wait=timedelta(milliseconds=20))
        usage.servicer.gate.set()
        client.enqueue(event(3), wait=timedelta(seconds=10))
    assert len(usage.servicer.stored) == 3


def test_a_closed_client_takes_nothing(start_usage: StartUsage) -> None:
    client = Client(start_usage().address, source="s")
    client.close()
    with pytest.raises(ClientClosed):
        client.track("t", customer_key="acme")
    with pytest.raises(ClientClosed):
        client.ingest([event()])


def test_a_flush_that_takes_too_long_says_so_and_loses_nothing(start_usage: StartUsage) -> None:
    usage = start_usage(is_open=False)
    with Client(usage.address, source="s") as client:
        client.enqueue(event())
        with pytest.raises(TimeoutError, match="still on their way"):
            client.flush(timedelta(milliseconds=20))
        usage.servicer.gate.set()
    assert len(usage.servicer.stored) == 1


def test_a_callback_that_fails_stops_nothing(start_usage: StartUsage, caplog: pytest.LogCaptureFixture) -> None:
    def fail(_results: object) -> None:
        raise RuntimeError("callback")

    usage = start_usage()
    with Client(usage.address, source="s", on_results=fail) as client:
        client.track("t", customer_key="acme")
        client.flush()
        client.track("t", customer_key="acme")
    assert len(usage.servicer.stored) == 2
    assert "on_results failed" in caplog.text


def test_refused_events_are_logged_where_nobody_asked_for_results(
    start_usage: StartUsage, caplog: pytest.LogCaptureFixture
) -> None:
    with Client(start_usage().address, source="s") as client:
        client.track("bad", customer_key="acme", id="e7")
    assert "event e7 refused" in caplog.text


def test_quantities_travel_exactly(start_usage: StartUsage) -> None:
    usage = start_usage()
    quantities = {"a": Decimal("1E+3"), "b": Decimal("0.000000000001"), "c": 12, "d": "3.50"}
    with Client(usage.address) as client:
        client.ingest([event(quantities=quantities)])
    sent = usage.servicer.calls[0].events[0].quantities
    assert {name: sent[name].value for name in sent} == {"a": "1000", "b": "0.000000000001", "c": "12", "d": "3.50"}


def test_times_travel_as_the_instant_they_are(start_usage: StartUsage) -> None:
    usage = start_usage()
    local = datetime(2026, 10, 1, 17, 30, 0, 123456, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    with Client(usage.address) as client:
        client.ingest([event(time=local)])
    sent = usage.servicer.calls[0].events[0].time.ToDatetime(UTC)
    assert sent == datetime(2026, 10, 1, 12, 0, 0, 123456, tzinfo=UTC)


def test_a_token_travels_as_authorization(start_usage: StartUsage) -> None:
    usage = start_usage()
    with Client(usage.address, token="s3cret") as client:
        client.ingest([event()])
    assert usage.servicer.metadata[0]["authorization"] == "Bearer s3cret"


@pytest.mark.parametrize(
    ("given", "kind", "words"),
    [
        ({"quantities": {"bytes": 1.5}}, TypeError, r"quantities\['bytes'\] is 1.5, a float: floats cannot hold"),
        ({"quantities": {"bytes": True}}, TypeError, "a bool: pass a Decimal"),
        ({"quantities": {"bytes": Decimal("NaN")}}, ValueError, "no amount"),
        ({"attributes": {"status": 200}}, TypeError, r"attributes\['status'\] is 200, a int; pass a str"),
        ({"time": datetime(2026, 1, 1)}, ValueError, "has no time zone"),  # noqa: DTZ001 - the point of the test
        ({"customer_id": "cus_1"}, ValueError, "exactly one of customer_id and customer_key"),
        ({"customer_key": ""}, ValueError, "exactly one of customer_id and customer_key"),
    ],
)
def test_a_malformed_event_is_refused_where_it_is_made(
    given: dict[str, Any], kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        event(**given)


def test_an_event_without_any_source_is_refused(start_usage: StartUsage) -> None:
    with Client(start_usage().address) as client, pytest.raises(ValueError, match="no source"):
        client.track("t", customer_key="acme")


@pytest.mark.parametrize("given", [{"max_batch_events": 10_001}, {"max_batch_events": 0}, {"max_batch_bytes": 1 << 25}])
def test_batch_bounds_are_those_of_the_contract(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="choose 1 to"):
        Client(**given)


def test_ids_are_made_once_and_sort_by_time() -> None:
    first, second = Event(type="t", customer_key="a"), Event(type="t", customer_key="a")
    assert first.id < second.id
