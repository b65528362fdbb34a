"""Calls that stream both ways: checked and translated as all others, and ended when nothing moves."""

import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import grpc
import pytest
from eventually import eventually
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from meterscope.usage.v1 import event_service_pb2 as pb
from meterscope.usage.v1 import event_service_pb2_grpc as rpc
from services.kit import logs
from services.kit.config import KitSettings
from services.kit.errors import Unavailable
from services.kit.server import Server
from services.kit.settings import read
from services.kit.streams import answered

NAME = "meterscope.usage.v1.EventService"
METHOD = f"/{NAME}/StreamEvents"
TOKEN = "token"
SETTINGS = replace(read(KitSettings, {}), service_token=TOKEN)
Requests = Iterator[pb.StreamEventsRequest]


@dataclass
class Events(rpc.EventServiceServicer):
    """Answers each request as the test says, one behind the other, and keeps what it saw."""

    act: Callable[[pb.StreamEventsRequest], str] = lambda request: request.request_id
    request_ids: list[str] = field(default_factory=list)
    taken: list[str] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    def StreamEvents(
        self, request_iterator: Requests, context: grpc.ServicerContext
    ) -> Iterator[pb.StreamEventsResponse]:
        self.request_ids.append(logs.request_id.get())
        try:
            for request in request_iterator:
                self.taken.append(request.request_id)
                yield pb.StreamEventsResponse(request_id=self.act(request))
        finally:
            self.ended.set()


@pytest.fixture
def events() -> Events:
    return Events()


@contextmanager
def running(events: Events, settings: KitSettings = SETTINGS) -> Iterator[tuple[Server, grpc.Channel]]:
    server = Server(
        "127.0.0.1:0",
        lambda target: rpc.add_EventServiceServicer_to_server(events, target),
        service_names=[NAME],
        settings=settings,
    )
    server.start()
    with grpc.insecure_channel(server.address) as channel:
        yield server, channel
    server.stop()


@pytest.fixture
def channel(events: Events) -> Iterator[grpc.Channel]:
    with running(events) as (_, channel):
        yield channel


class Talk:
    """A call whose requests are sent one by one."""

    def __init__(self, channel: grpc.Channel, *, token: str = TOKEN) -> None:
        self._requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        method = channel.stream_stream(METHOD, response_deserializer=pb.StreamEventsResponse.FromString)
        metadata = [("authorization", f"Bearer {token}"), ("x-request-id", "night-1")]
        self.call: Any = method(iter(self._requests.get, None), timeout=20, metadata=metadata)

    def send(self, *names: str) -> None:
        for name in names:
            self._requests.put(pb.StreamEventsRequest(request_id=name).SerializeToString())

    def send_bytes(self, data: bytes) -> None:
        self._requests.put(data)

    def half_close(self) -> None:
        self._requests.put(None)

    def answer(self) -> str:
        return next(self.call).request_id  # type: ignore[no-any-return]

    def fault(self) -> tuple[grpc.StatusCode, str, Any]:
        """Read to the end, which is an error: its status, reason and details."""
        with pytest.raises(grpc.RpcError) as refused:
            list(self.call)
        status = rpc_status.from_call(refused.value)  # type: ignore[arg-type]
        found: dict[type[Any], Any] = {}
        for packed in status.details if status else ():
            for kind in (error_details_pb2.ErrorInfo, error_details_pb2.RetryInfo):
                if packed.Is(kind.DESCRIPTOR):
                    found[kind] = kind.FromString(packed.value)
        info = found.get(error_details_pb2.ErrorInfo, error_details_pb2.ErrorInfo())
        return refused.value.code(), info.reason, found


def span_code(spans: InMemorySpanExporter) -> str:
    span = eventually(lambda: next((each for each in spans.get_finished_spans() if each.name == METHOD[1:]), None))
    assert span.attributes is not None
    return str(span.attributes["rpc.response.status_code"])


def test_requests_are_answered_while_more_are_sent(
    channel: grpc.Channel, events: Events, spans: InMemorySpanExporter
) -> None:
    talk = Talk(channel)
    talk.send("a")
    assert talk.answer() == "a"
    talk.send("b", "c")
    talk.half_close()
    assert [each.request_id for each in talk.call] == ["b", "c"]
    assert ("x-request-id", "night-1") in [tuple(item) for item in talk.call.trailing_metadata()]
    assert events.request_ids == ["night-1"]
    assert span_code(spans) == "OK"


def test_a_wrong_token_is_refused_before_anything_is_read(channel: grpc.Channel, events: Events) -> None:
    talk = Talk(channel, token="wrong")
    talk.send("a")
    code, reason, _ = talk.fault()
    assert (code, reason) == (grpc.StatusCode.UNAUTHENTICATED, "BAD_SERVICE_TOKEN")
    assert (events.request_ids, events.taken) == ([], [])


def test_bytes_that_are_no_message_end_the_stream_behind_the_answers_before(channel: grpc.Channel) -> None:
    talk = Talk(channel)
    talk.send("a", "b")
    talk.send_bytes(b"\xff\xff")
    talk.send("d")
    assert [talk.answer(), talk.answer()] == ["a", "b"]
    code, reason, details = talk.fault()
    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "UNDECODABLE")
    assert details[error_details_pb2.ErrorInfo].metadata["position"] == "2"


def test_an_error_amid_the_stream_arrives_as_such(channel: grpc.Channel, events: Events) -> None:
    def refuse(request: pb.StreamEventsRequest) -> str:
        if request.request_id == "b":
            raise Unavailable("away", retry_after=0.25)
        return request.request_id

    events.act = refuse
    talk = Talk(channel)
    talk.send("a", "b", "c")
    assert talk.answer() == "a"
    code, _, details = talk.fault()
    assert code is grpc.StatusCode.UNAVAILABLE
    assert details[error_details_pb2.RetryInfo].retry_delay.ToMilliseconds() == 250


def test_a_fault_of_ours_says_nothing_of_the_inside(channel: grpc.Channel, events: Events) -> None:
    def fail(_: pb.StreamEventsRequest) -> str:
        raise ZeroDivisionError("the inside")

    events.act = fail
    talk = Talk(channel)
    talk.send("a")
    code, _, _ = talk.fault()
    assert code is grpc.StatusCode.INTERNAL
    assert "inside" not in talk.call.details()


def test_a_caller_that_breaks_off_is_no_fault_of_ours(
    channel: grpc.Channel, events: Events, spans: InMemorySpanExporter, caplog: pytest.LogCaptureFixture
) -> None:
    talk = Talk(channel)
    talk.send("a")
    assert talk.answer() == "a"
    talk.call.cancel()
    assert span_code(spans) == "CANCELLED"
    assert events.ended.wait(20)
    assert "call failed" not in caplog.messages


def test_a_stream_on_which_nothing_comes_is_ended(events: Events) -> None:
    with running(events, replace(SETTINGS, stream_idle=timedelta(seconds=0.2))) as (_, channel):
        talk = Talk(channel)
        talk.send("a")
        assert talk.answer() == "a"
        code, reason, _ = talk.fault()
        assert (code, reason) == (grpc.StatusCode.ABORTED, "STREAM_IDLE")
        assert events.ended.wait(20)


def test_a_caller_that_takes_no_answers_is_sent_away(events: Events, spans: InMemorySpanExporter) -> None:
    # Unread, a caller's side takes in some MiB: gRPC lets it grow to 16 on a line that seems slow.
    events.act = lambda _: "x" * (1 << 20)
    with running(events, replace(SETTINGS, stream_idle=timedelta(seconds=0.2))) as (_, channel):
        talk = Talk(channel)
        talk.send(*(str(number) for number in range(40)))
        assert events.ended.wait(20)
        assert span_code(spans) == "CANCELLED"
        assert len(events.taken) < 40


def test_a_server_that_stops_answers_what_it_is_at_work_on_and_sends_the_caller_elsewhere(events: Events) -> None:
    reached, go_on = threading.Event(), threading.Event()

    def slow(request: pb.StreamEventsRequest) -> str:
        reached.set()
        assert go_on.wait(20)
        return request.request_id

    events.act = slow
    with running(events) as (server, channel):
        talk = Talk(channel)
        talk.send("a", "b", "c")
        assert reached.wait(20)
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        # It refuses new calls now; the one that runs goes on.
        eventually(lambda: refuses(channel))
        go_on.set()
        assert talk.answer() == "a"
        code, reason, details = talk.fault()
        assert (code, reason) == (grpc.StatusCode.UNAVAILABLE, "SERVER_STOPPING")
        assert details[error_details_pb2.RetryInfo].retry_delay.ToMilliseconds() > 0
        stopping.join(5)  # of a grace of 10 s
        assert not stopping.is_alive()
        assert events.taken == ["a"]


def refuses(channel: grpc.Channel) -> bool:
    try:
        rpc.EventServiceStub(channel).GetEvent(pb.GetEventRequest(), timeout=5)
    except grpc.RpcError as error:
        return error.code() is grpc.StatusCode.UNAVAILABLE
    return False


def test_several_requests_are_answered_at_once_and_in_their_order() -> None:
    together = threading.Barrier(3)

    def answer(place: int, request: str) -> str:
        together.wait(20)  # passes only with three at a time
        return f"{place} {request}"

    assert list(answered(iter("abcdef"), answer, at_once=3, ahead=6)) == [f"{n} {c}" for n, c in enumerate("abcdef")]


def test_no_more_is_read_than_the_answers_that_are_taken_allow() -> None:
    read_: list[int] = []

    def requests() -> Iterator[int]:
        for number in range(100):
            read_.append(number)
            yield number

    answers = answered(requests(), lambda _, request: request, at_once=2, ahead=5)
    assert next(answers) == 0
    # One answer was taken: five more may be under way.
    eventually(lambda: len(read_) == 6)
    assert next(answers) == 1
    eventually(lambda: len(read_) == 7)
    answers.close()  # type: ignore[attr-defined]
    assert len(read_) <= 8


def test_an_error_comes_behind_the_answers_before_it_and_ends_the_reading() -> None:
    go_on = threading.Event()

    def answer(_: int, request: str) -> str:
        if request == "c":
            go_on.set()
            raise Unavailable("away")
        assert go_on.wait(20)  # the error is there before the answers
        return request

    answers = answered(iter("abcdefgh"), answer, at_once=3, ahead=3)
    assert [next(answers), next(answers)] == ["a", "b"]
    with pytest.raises(Unavailable):
        next(answers)


def test_streams_of_many_callers_are_apart(channel: grpc.Channel) -> None:
    def talk(name: str) -> list[str]:
        talk = Talk(channel)
        talk.send(*(f"{name}{number}" for number in range(50)))
        talk.half_close()
        return [each.request_id for each in talk.call]

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(talk, "abcdefgh")) == [[f"{name}{n}" for n in range(50)] for name in "abcdefgh"]
