"""Events over a stream: what is answered is stored, as by IngestEvents, whatever ends the stream."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from calling import Caller, points
from eventually import eventually
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from streaming import EventStream, outcomes, told
from usage_harness import Client, event

from meterscope.usage.v1 import call_record_service_pb2 as calls_pb
from meterscope.usage.v1 import event_service_pb2 as pb
from services.kit.channel import open_channel
from services.kit.embedded import EmbeddedPostgres, start_postgres
from services.usage.__main__ import build_server
from services.usage.settings import Settings

pytestmark = pytest.mark.usefixtures("meters", "worker")

MOST_STREAMS = 8
TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """A server of this module's own, to be stopped."""
    server = start_postgres(tmp_path_factory.mktemp("postgres"), durable=False)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def channel(migrated: Settings, metric_reader: InMemoryMetricReader) -> Iterator[grpc.Channel]:  # noqa: ARG001 - the server reports to it
    with serving(migrated) as channel:
        yield channel


@contextmanager
def serving(settings: Settings) -> Iterator[grpc.Channel]:
    server = build_server(settings)
    with open_channel(f"127.0.0.1:{server.start()}", settings.kit) as channel:
        yield channel
    server.stop()


@contextmanager
def refused(code: grpc.StatusCode) -> Iterator[Callable[[], tuple[str, dict[str, str], float]]]:
    with pytest.raises(grpc.RpcError) as caught:
        yield lambda: told(caught.value)
    assert caught.value.code() is code, caught.value.details()


def test_each_request_is_answered_with_a_result_per_event(channel: grpc.Channel, client: Client) -> None:
    customer = client.put_customer()
    stream = EventStream(channel)
    good, bad = event(customer, quantities={"bytes": "5"}), event(customer, quantities={"bytes": "-1"})

    stream.send(good, bad, event("nobody"), request_id="first")
    stream.send(good, request_id="second")

    first = stream.answer()
    assert (first.request_id, first.position) == ("first", 0)
    assert outcomes(first) == ["ACCEPTED", "REJECTED", "QUARANTINED"]
    assert (first.results[1].index, first.results[1].id, first.results[1].reason) == (1, bad.id, "NEGATIVE")
    assert (first.accepted, first.rejected, first.quarantined) == (1, 1, 1)
    (second,) = stream.end()
    assert (second.request_id, second.position, second.results[0].id) == ("second", 1, good.id)
    assert outcomes(second) == ["DUPLICATE"]
    assert client.total(customer, "bytes") == 5


def test_many_requests_under_way_are_answered_in_their_order_and_count_once(
    channel: grpc.Channel, client: Client
) -> None:
    customer = client.put_customer()
    stream = EventStream(channel)
    batches = [[event(customer, quantities={"bytes": "2"}) for _ in range(1 + place % 7)] for place in range(60)]
    for place, batch in enumerate(batches):
        stream.send(*batch, request_id=str(place))
        if place % 5 == 0:
            stream.send(*batch, request_id=f"{place} again")
    answers = stream.end()

    assert [answer.position for answer in answers] == list(range(72))
    names = [
        name for place in range(60) for name in ((str(place), f"{place} again") if place % 5 == 0 else (str(place),))
    ]
    assert [answer.request_id for answer in answers] == names
    # 8 times 1 + 2 + … + 7 and 1 + 2 + 3 + 4, as 60 = 8 * 7 + 4.
    sent = 8 * 28 + 10
    assert sum(answer.accepted for answer in answers) == sent
    # Places 0, 5, 10, … 55 modulo 7 are 0, 5, 3, 1, 6, 4, 2, 0, 5, 3, 1, 6: 36 and 12 for the ones.
    assert sum(answer.duplicate for answer in answers) == 48
    assert client.total(customer, "bytes") == 2 * sent


@pytest.mark.parametrize("count", [0, 10_001])
def test_a_request_of_a_wrong_size_ends_the_stream_behind_the_answers_before(
    channel: grpc.Channel, client: Client, count: int
) -> None:
    customer = client.put_customer()
    stream = EventStream(channel)
    stream.send(event(customer))
    stream.send(event(customer))
    stream.send(*[event(customer)] * count)
    assert [outcomes(stream.answer()) for _ in range(2)] == [["ACCEPTED"], ["ACCEPTED"]]
    with refused(grpc.StatusCode.INVALID_ARGUMENT) as how:
        stream.answer()
    assert how() == ("BATCH_SIZE", {"position": "2"}, 0)
    assert client.total(customer, "requests") == 2


def test_more_streams_than_a_server_takes_are_sent_away_until_one_ends(channel: grpc.Channel, client: Client) -> None:
    customer = client.put_customer()
    streams = [EventStream(channel) for _ in range(MOST_STREAMS)]
    assert all(stream.ask(event(customer)).accepted for stream in streams)
    with refused(grpc.StatusCode.RESOURCE_EXHAUSTED) as how:
        EventStream(channel).ask(event(customer))
    assert how() == ("TOO_MANY_STREAMS", {}, 1.0)
    # Other calls have their threads.
    assert client.outcomes(event(customer)) == ["ACCEPTED"]
    streams.pop().end()
    streams.pop().call.cancel()
    streams += eventually(lambda: opened(channel, customer, 2))
    for stream in streams:
        stream.end()
    # 8, one by IngestEvents, and 2 or more while places were waited for.
    assert client.total(customer, "requests") >= 11


def opened(channel: grpc.Channel, customer: str, count: int) -> list[EventStream]:
    """So many streams that are taken, or none."""
    streams = [EventStream(channel) for _ in range(count)]
    try:
        for stream in streams:
            stream.ask(event(customer))
    except grpc.RpcError:
        for stream in streams:
            stream.call.cancel()
        return []
    return streams


def test_an_idle_stream_makes_room_for_others(migrated: Settings, client: Client) -> None:
    customer = client.put_customer()
    kit = replace(migrated.kit, stream_idle=timedelta(seconds=0.3))
    with serving(replace(migrated, kit=kit, streams=1)) as channel:
        idle = EventStream(channel)
        assert idle.ask(event(customer)).accepted == 1
        with refused(grpc.StatusCode.ABORTED) as how:
            idle.answer()
        assert how()[0] == "STREAM_IDLE"
        assert eventually(lambda: opened(channel, customer, 1))


def test_a_stalled_import_makes_room_for_others(migrated: Settings, client: Client) -> None:
    customer = client.put_customer()
    kit = replace(migrated.kit, stream_idle=timedelta(seconds=0.3))
    with serving(replace(migrated, kit=kit)) as channel, ThreadPoolExecutor(4) as pool:
        caller = Caller(channel)
        never = threading.Event()

        def stalling() -> Iterator[calls_pb.ImportCallRecordsRequest]:
            yield calls_pb.ImportCallRecordsRequest(customer_id=customer, chunk=b"id,caller\n")
            never.wait(20)

        stalled = [pool.submit(caller.stub.ImportCallRecords, stalling(), timeout=20) for _ in range(4)]
        for each in stalled:
            with refused(grpc.StatusCode.ABORTED) as how:
                each.result()
            assert how()[0] == "STREAM_IDLE"
        never.set()
        assert caller.send("id,caller,callee,start_time,duration\n", customer_id=customer).rows == 0


def test_a_deadline_ends_a_stream_and_leaves_what_was_answered(channel: grpc.Channel, client: Client) -> None:
    customer = client.put_customer()
    stream = EventStream(channel, timeout=0.5)
    assert stream.ask(event(customer)).accepted == 1
    with refused(grpc.StatusCode.DEADLINE_EXCEEDED):
        stream.answer()
    assert client.total(customer, "requests") == 1


def test_events_have_the_trace_that_their_request_names(
    channel: grpc.Channel, client: Client, spans: InMemorySpanExporter
) -> None:
    customer = client.put_customer()
    stream = EventStream(channel)
    sent = event(customer)
    stream.send(sent, traceparent=f"00-{TRACE}-00f067aa0ba902b7-01")
    assert stream.answer().accepted == 1
    # One that is none is not looked at, as W3C Trace Context has it.
    other = event(customer)
    stream.send(other, traceparent="nonsense")
    assert stream.answer().accepted == 1
    stream.end()

    asked = [pb.GetEventRequest(customer_id=customer, event_id=each.id, source=each.source) for each in (sent, other)]
    found = [client.events.GetEvent(request).trace_id for request in asked]
    assert found[0] == TRACE
    assert found[1] not in {"", TRACE}
    mine = [span for span in spans.get_finished_spans() if span.name.endswith("/StreamEvents request")]
    assert [f"{span.context.trace_id:032x}" for span in mine if span.context] == found
    assert [(span.attributes or {})["meterscope.events.accepted"] for span in mine] == [1, 1]


def test_what_comes_by_a_stream_is_counted_as_such(
    channel: grpc.Channel, client: Client, metric_reader: InMemoryMetricReader
) -> None:
    customer = client.put_customer()

    def counts() -> Counter[str]:
        return Counter(
            {
                str(dict(labels)["transport"]): int(value)
                for labels, value in points(metric_reader, "billing.events.ingested").items()
                if dict(labels)["outcome"] == "accepted"
            }
        )

    before = counts()
    stream = EventStream(channel)
    stream.send(event(customer), event(customer))
    stream.end()
    client.ingest(event(customer))
    request = pb.IngestEventsRequest(events=[event(customer) for _ in range(5)])
    for given in ("rest", "cloudevents", "pigeon"):
        client.events.IngestEvents(request, metadata=[("x-meterscope-transport", given)])
        request = pb.IngestEventsRequest(events=[event(customer) for _ in range(5)])
    moved = counts()
    moved.subtract(before)
    # Five by a way that is not known count as gRPC.
    assert moved == {"grpc": 6, "stream": 2, "rest": 5, "cloudevents": 5}


def test_while_postgresql_is_away_the_stream_ends_with_a_hint_and_a_new_one_loses_nothing(
    channel: grpc.Channel, client: Client, postgres: EmbeddedPostgres
) -> None:
    customer = client.put_customer()
    time = datetime.now(UTC)
    batches = [
        [event(customer, id=f"away-{place}-{n}", time=time, quantities={"bytes": "3"}) for n in range(20)]
        for place in range(300)
    ]
    stream = EventStream(channel)
    for batch in batches[:100]:
        stream.send(*batch)
    assert stream.answer().accepted == 20
    postgres.kill()
    for batch in batches[100:200]:
        stream.send(*batch)
    answers, error = answers_until_refused(stream)
    answered = 1 + answers
    assert answered < 200
    assert error is not None
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert told(error)[2] > 0
    postgres.start()
    # All that was not answered goes over a new stream; some of it may be stored already.
    while answered < 300:
        stream = EventStream(channel)
        for batch in batches[answered:]:
            stream.send(*batch)
        answers, error = answers_until_refused(stream)
        answered += answers
        assert error is None or error.code() is grpc.StatusCode.UNAVAILABLE
    # 300 batches of 20.
    eventually(lambda: client.total(customer, "requests") == 6000)
    assert client.total(customer, "bytes") == 18_000


def answers_until_refused(stream: EventStream) -> tuple[int, grpc.RpcError | None]:
    """Read the answers to batches of 20 up to the end of what was sent, or to an error; return how many, and the error."""
    answers = 0
    stream.half_close()
    try:
        while True:
            answer = stream.answer()
            assert answer.accepted + answer.duplicate == 20
            answers += 1
    except StopIteration:
        return answers, None
    except grpc.RpcError as error:
        return answers, error
