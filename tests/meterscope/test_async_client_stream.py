"""`AsyncClient.stream`: as `Client.stream`, from the tasks of an event loop."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import grpc
import pytest
from eventually import eventually
from fake_usage import Failure, RunningUsage, check_streamed_spans
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from usage_process import UsageProcess

from meterscope import AsyncClient, ClientClosed, Event, Outcome, Result, Undelivered

StartUsage = Callable[..., RunningUsage]
NOW = datetime(2026, 10, 1, 12, 0, tzinfo=UTC)
CUSTOMER = "cus_async_stream"
# Batches that are under way at a time.
WINDOW = 8


def event(number: int, kind: str = "t", size: int = 0) -> Event:
    attributes = {"text": "x" * size} if size else {}
    return Event(type=kind, customer_key="acme", source="test", id=f"e{number}", time=NOW, attributes=attributes)


def test_each_event_is_answered_in_order_over_one_stream(start_usage: StartUsage) -> None:
    usage = start_usage()

    async def run() -> list[Result]:
        async with AsyncClient(usage.address, max_batch_events=7) as client:
            results = [
                result async for result in client.stream(event(n, "bad" if n == 30 else "t") for n in range(100))
            ]
            assert client.counts == {Outcome.ACCEPTED: 99, Outcome.REJECTED: 1}
            assert [result async for result in client.stream([])] == []
            return results

    results = asyncio.run(run())
    assert [result.event for result in results] == [event(n, "bad" if n == 30 else "t") for n in range(100)]
    assert [n for n, result in enumerate(results) if result.outcome is Outcome.REJECTED] == [30]
    # 14 batches of 7 and one of 2.
    assert [len(call.events) for call in usage.servicer.calls] == [7] * 14 + [2]
    # One of them for nothing.
    assert usage.servicer.streams == 2


def test_events_are_taken_as_the_answers_come_from_what_comes_by_and_by_too(start_usage: StartUsage) -> None:
    usage = start_usage(is_open=False)
    taken: list[int] = []

    async def events() -> AsyncIterator[Event]:
        for number in range(100):
            await asyncio.sleep(0)
            taken.append(number)
            yield event(number)

    async def run() -> None:
        async with AsyncClient(usage.address, max_batch_events=1) as client:
            results = client.stream(events())
            first = asyncio.ensure_future(anext(results))
            await asyncio.to_thread(eventually, lambda: len(taken) == WINDOW)
            usage.servicer.gate.set()
            assert (await first).event.id == "e0"
            # Not one more before the next result is asked for.
            assert len(taken) == WINDOW
            assert [result.event.id async for result in results] == [f"e{number}" for number in range(1, 100)]

    asyncio.run(run())


@pytest.mark.parametrize("size", [0, 50_000])
@pytest.mark.parametrize("stored", [False, True])
def test_what_a_broken_stream_did_not_answer_is_sent_again(start_usage: StartUsage, *, stored: bool, size: int) -> None:
    """Large events are still being sent when the stream ends: grpc.aio then does not tell why it did."""
    usage = start_usage(
        Failure(grpc.StatusCode.OK),
        Failure(grpc.StatusCode.OK),
        Failure(grpc.StatusCode.UNAVAILABLE, stored=stored, retry_after=0.1),
        Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, retry_after=0.1),
    )

    async def run() -> list[Result]:
        async with AsyncClient(usage.address, max_batch_events=1) as client:
            return [result async for result in client.stream(event(number, size=size) for number in range(20))]

    results = asyncio.run(run())
    assert [result.event.id for result in results] == [f"e{number}" for number in range(20)]
    assert Counter(result.outcome for result in results).keys() <= {Outcome.ACCEPTED, Outcome.DUPLICATE}
    # What was stored before its answer was lost is a duplicate.
    assert (results[2].outcome is Outcome.DUPLICATE) == stored
    assert len(usage.servicer.stored) == 20


@pytest.mark.parametrize("size", [0, 50_000])
def test_a_refusal_hands_back_what_was_not_answered(start_usage: StartUsage, size: int) -> None:
    refusals = [Failure(grpc.StatusCode.INVALID_ARGUMENT)] * 2
    usage = start_usage(Failure(grpc.StatusCode.OK), *refusals)
    answered: list[str] = []

    async def run() -> None:
        async with AsyncClient(usage.address, max_batch_events=2) as client:
            async for result in client.stream(event(number, size=size) for number in range(100)):
                answered.append(result.event.id)  # noqa: PERF401 - those before the refusal count

    with pytest.raises(Undelivered) as refused:
        asyncio.run(run())
    assert answered == ["e0", "e1"]
    assert (refused.value.is_refused, refused.value.code) == (True, "INVALID_ARGUMENT")
    # 8 batches of 2 were under way when the first was answered; its place was taken by a ninth.
    assert [each.id for each in refused.value.events] == [f"e{number}" for number in range(2, 18)]


def test_what_the_events_themselves_raise_is_the_callers(start_usage: StartUsage) -> None:
    usage = start_usage()
    failed = grpc.RpcError("of another service, that events are read from")

    async def events() -> AsyncIterator[Event]:
        yield event(1)
        raise failed

    async def run() -> None:
        async with AsyncClient(usage.address, max_batch_events=1) as client:
            assert [result async for result in client.stream(events())] == []

    with pytest.raises(grpc.RpcError) as raised:
        asyncio.run(run())
    assert raised.value is failed


def test_a_server_that_does_not_answer_in_time_is_asked_again(start_usage: StartUsage) -> None:
    usage = start_usage(is_open=False)

    async def run() -> None:
        async with AsyncClient(usage.address, timeout=timedelta(seconds=0.3)) as client:
            results = client.stream([event(1)])
            first = asyncio.ensure_future(anext(results))
            await asyncio.to_thread(eventually, lambda: usage.servicer.streams >= 2)
            usage.servicer.gate.set()
            assert (await first).event.id == "e1"

    asyncio.run(run())


def test_it_gives_up_when_the_time_is_over(start_usage: StartUsage) -> None:
    usage = start_usage()
    usage.server.stop(None).wait(5)

    async def run() -> None:
        async with AsyncClient(usage.address, retry_for=timedelta(seconds=0.3)) as client:
            assert [result async for result in client.stream([event(1), event(2)])] == []

    with pytest.raises(Undelivered) as away:
        asyncio.run(run())
    assert ([each.id for each in away.value.events], away.value.is_refused) == (["e1", "e2"], False)


def test_a_client_that_is_closed_hands_back_what_was_not_answered(start_usage: StartUsage) -> None:
    usage = start_usage(is_open=False)

    async def run() -> None:
        client = AsyncClient(usage.address)
        with pytest.raises(ClientClosed):
            await anext(client.stream([event(1)]))
        await client.open()
        waiting = asyncio.ensure_future(anext(client.stream([event(1)])))
        await asyncio.to_thread(eventually, lambda: bool(usage.servicer.calls))
        await client.close()
        with pytest.raises(Undelivered) as raised:
            await waiting
        assert [each.id for each in raised.value.events] == ["e1"]
        usage.servicer.gate.set()
        with pytest.raises(ClientClosed):
            await anext(client.stream([event(2)]))

    asyncio.run(run())


def test_a_task_that_is_cancelled_amid_a_stream_ends_as_cancelled_and_leaves_the_client_at_work(
    start_usage: StartUsage,
) -> None:
    usage = start_usage(is_open=False)

    async def run() -> None:
        async with AsyncClient(usage.address) as client:
            waiting = asyncio.ensure_future(anext(client.stream([event(1)])))
            await asyncio.to_thread(eventually, lambda: bool(usage.servicer.calls))
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            usage.servicer.gate.set()
            assert [result.event.id async for result in client.stream([event(2)])] == ["e2"]

    asyncio.run(run())


def test_a_stream_that_is_left_early_is_over(start_usage: StartUsage) -> None:
    usage = start_usage()

    async def run() -> None:
        async with AsyncClient(usage.address, max_batch_events=1) as client:
            async with aclosing(client.stream(event(number) for number in range(100))) as results:
                async for result in results:
                    assert result.event.id == "e0"
                    break
            assert [result.event.id async for result in client.stream([event(100)])] == ["e100"]

    asyncio.run(run())
    assert usage.servicer.streams == 2
    # Whatever was under way when it was left.
    assert len(usage.servicer.stored) <= WINDOW + 2


def test_each_batch_is_a_span_that_the_server_hears_of(start_usage: StartUsage, spans: InMemorySpanExporter) -> None:
    usage = start_usage()

    async def run() -> None:
        async with AsyncClient(usage.address, max_batch_events=2) as client:
            assert len([result async for result in client.stream(event(number) for number in range(6))]) == 6

    asyncio.run(run())
    check_streamed_spans(spans, usage, accepted=[2, 2, 2])


def test_a_server_that_is_killed_loses_nothing_and_counts_nothing_twice(service: UsageProcess) -> None:
    service.prepare(CUSTOMER)
    count = 20_000
    time = datetime.now(UTC)
    outcomes: Counter[Outcome] = Counter()

    async def run() -> int:
        events = (
            Event(type="t", customer_id=CUSTOMER, source="s", id=f"e{number}", time=time, quantities={"n": number})
            for number in range(count)
        )
        kills = number = 0
        async with AsyncClient(service.address, max_batch_events=100) as client:
            async for result in client.stream(events):
                assert result.event.id == f"e{number}"
                outcomes[result.outcome] += 1
                if number in {2_050, 9_999}:
                    # Seven batches and more are under way.
                    await asyncio.to_thread(service.kill)
                    await asyncio.to_thread(service.start, "serve")
                    kills += 1
                number += 1
        return kills

    assert asyncio.run(run()) == 2
    assert outcomes.keys() <= {Outcome.ACCEPTED, Outcome.DUPLICATE}
    assert outcomes.total() == count
    # The sum of 0 to 19,999.
    assert service.total(CUSTOMER) == Decimal(count * (count - 1) // 2)
