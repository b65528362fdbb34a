"""`Client.stream`: many events over one stream, each answered once, whatever breaks it."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import grpc
import pytest
from eventually import eventually
from fake_usage import Failure, RunningUsage, check_streamed_spans
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from usage_process import UsageProcess

from meterscope import Client, ClientClosed, Event, Outcome, Undelivered

StartUsage = Callable[..., RunningUsage]
NOW = datetime(2026, 10, 1, 12, 0, tzinfo=UTC)
CUSTOMER = "cus_stream"
# Batches that are under way at a time.
WINDOW = 8


def event(number: int, kind: str = "t") -> Event:
    return Event(type=kind, customer_key="acme", source="test", id=f"e{number}", time=NOW)


def ids(results: Iterator[object]) -> list[str]:
    return [result.event.id for result in results]  # type: ignore[attr-defined]


def test_each_event_is_answered_in_order_over_one_stream(start_usage: StartUsage) -> None:
    usage = start_usage()
    with Client(usage.address, max_batch_events=7) as client:
        results = list(client.stream(event(number, "bad" if number == 30 else "t") for number in range(100)))
        assert client.counts == {Outcome.ACCEPTED: 99, Outcome.REJECTED: 1}
    assert [result.event for result in results] == [event(n, "bad" if n == 30 else "t") for n in range(100)]
    assert [n for n, result in enumerate(results) if result.outcome is Outcome.REJECTED] == [30]
    # 14 batches of 7 and one of 2.
    assert [len(call.events) for call in usage.servicer.calls] == [7] * 14 + [2]
    assert usage.servicer.streams == 1


def test_nothing_to_send_is_answered_with_nothing(start_usage: StartUsage) -> None:
    with Client(start_usage().address) as client:
        assert list(client.stream([])) == []


def test_events_are_taken_as_the_answers_come(start_usage: StartUsage) -> None:
    usage = start_usage(is_open=False)
    taken: list[int] = []

    def events() -> Iterator[Event]:
        for number in range(100):
            taken.append(number)
            yield event(number)

    with Client(usage.address, max_batch_events=1) as client:
        results = client.stream(events())
        first: list[object] = []
        thread = threading.Thread(target=lambda: first.append(next(results)))
        thread.start()
        eventually(lambda: len(taken) == WINDOW)
        usage.servicer.gate.set()
        thread.join(20)
        assert len(first) == 1
        # Not one more before the next result is asked for.
        assert len(taken) == WINDOW
        assert ids(results) == [f"e{number}" for number in range(1, 100)]


@pytest.mark.parametrize("stored", [False, True])
def test_what_a_broken_stream_did_not_answer_goes_over_the_next(start_usage: StartUsage, *, stored: bool) -> None:
    usage = start_usage(
        Failure(grpc.StatusCode.OK),
        Failure(grpc.StatusCode.OK),
        Failure(grpc.StatusCode.UNAVAILABLE, stored=stored, retry_after=0.1),
        Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, retry_after=0.1),
    )
    with Client(usage.address, max_batch_events=1) as client:
        results = list(client.stream(event(number) for number in range(20)))
    assert [result.event.id for result in results] == [f"e{number}" for number in range(20)]
    # What was stored before its answer was lost is a duplicate.
    duplicates = [result.event.id for result in results if result.outcome is Outcome.DUPLICATE]
    assert duplicates == (["e2"] if stored else [])
    assert usage.servicer.streams == 3
    sent = Counter(call.events[0].id for call in usage.servicer.calls)
    assert (sent["e1"], sent["e2"]) == (1, 3)


def test_a_refusal_hands_back_what_was_not_answered(start_usage: StartUsage) -> None:
    usage = start_usage(Failure(grpc.StatusCode.OK), Failure(grpc.StatusCode.INVALID_ARGUMENT))
    answered: list[str] = []
    with Client(usage.address, max_batch_events=2) as client, pytest.raises(Undelivered) as refused:
        answered.extend(result.event.id for result in client.stream(event(number) for number in range(100)))
    assert answered == ["e0", "e1"]
    assert (refused.value.is_refused, refused.value.code) == (True, "INVALID_ARGUMENT")
    # 8 batches of 2 were under way when the first was answered; its place was taken by a ninth.
    assert [each.id for each in refused.value.events] == [f"e{number}" for number in range(2, 18)]


def test_what_the_events_themselves_raise_is_the_callers(start_usage: StartUsage) -> None:
    """Were it taken for the stream's own, the stream would end as if there were no more events."""
    failed = grpc.RpcError("of another service, that events are read from")

    def events() -> Iterator[Event]:
        yield event(1)
        raise failed

    with Client(start_usage().address, max_batch_events=1) as client, pytest.raises(grpc.RpcError) as raised:
        list(client.stream(events()))
    assert raised.value is failed


def test_a_server_that_does_not_answer_in_time_is_asked_again(start_usage: StartUsage) -> None:
    usage = start_usage(is_open=False)
    with Client(usage.address, timeout=timedelta(seconds=0.3)) as client:
        results = client.stream([event(1)])
        first: list[object] = []
        thread = threading.Thread(target=lambda: first.append(next(results)))
        thread.start()
        eventually(lambda: usage.servicer.streams >= 2)
        usage.servicer.gate.set()
        thread.join(20)
        assert ids(iter(first)) == ["e1"]


def test_it_gives_up_when_the_time_is_over(start_usage: StartUsage) -> None:
    usage = start_usage()
    usage.server.stop(None).wait(5)
    with Client(usage.address, retry_for=timedelta(seconds=0.3)) as client, pytest.raises(Undelivered) as away:
        list(client.stream([event(1), event(2)]))
    assert ([each.id for each in away.value.events], away.value.is_refused) == (["e1", "e2"], False)


def test_a_client_that_is_closed_hands_back_what_was_not_answered(start_usage: StartUsage) -> None:
    usage = start_usage(is_open=False)
    client = Client(usage.address)
    results = client.stream([event(1)])
    raised: list[Undelivered] = []

    def consume() -> None:
        try:
            next(results)
        except Undelivered as error:
            raised.append(error)

    thread = threading.Thread(target=consume)
    thread.start()
    assert usage.servicer.arrived.acquire(timeout=20)
    client.close()
    thread.join(20)
    usage.servicer.gate.set()
    assert [each.id for each in raised[0].events] == ["e1"]
    with pytest.raises(ClientClosed):
        next(client.stream([event(2)]))


def test_each_batch_is_a_span_that_the_server_hears_of(start_usage: StartUsage, spans: InMemorySpanExporter) -> None:
    usage = start_usage()
    with Client(usage.address, max_batch_events=2) as client:
        list(client.stream(event(number) for number in range(6)))
    check_streamed_spans(spans, usage, accepted=[2, 2, 2])


def test_a_server_that_is_killed_loses_nothing_and_counts_nothing_twice(service: UsageProcess) -> None:
    service.prepare(CUSTOMER)
    count = 30_000
    time = datetime.now(UTC)
    events = (
        Event(type="t", customer_id=CUSTOMER, source="s", id=f"e{number}", time=time, quantities={"n": number})
        for number in range(count)
    )
    outcomes: Counter[Outcome] = Counter()
    kills = 0
    with Client(service.address, max_batch_events=100) as client:
        for number, result in enumerate(client.stream(events)):
            assert result.event.id == f"e{number}"
            outcomes[result.outcome] += 1
            if number in {2_050, 9_999, 20_001}:
                # Seven batches and more are under way.
                service.kill()
                service.start("serve")
                kills += 1
    assert kills == 3
    assert outcomes.keys() <= {Outcome.ACCEPTED, Outcome.DUPLICATE}
    assert outcomes.total() == count
    # The sum of 0 to 29,999.
    assert service.total(CUSTOMER) == Decimal(count * (count - 1) // 2)
