"""Calls that take a stream pass through the same interceptor as all others."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import grpc
import pytest
from eventually import eventually
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from meterscope.usage.v1 import call_record_service_pb2 as pb
from meterscope.usage.v1 import call_record_service_pb2_grpc as rpc
from services.kit import logs
from services.kit.config import KitSettings
from services.kit.errors import InvalidArgument
from services.kit.server import Server
from services.kit.settings import read

NAME = "meterscope.usage.v1.CallRecordService"
SETTINGS_TOKEN = "token"
METHOD = f"/{NAME}/ImportCallRecords"
Requests = Iterator[pb.ImportCallRecordsRequest]


@dataclass
class Calls(rpc.CallRecordServiceServicer):
    """Does what the test says and keeps what it saw."""

    act: Callable[[Requests], int] = lambda requests: sum(len(request.chunk) for request in requests)
    request_ids: list[str] = field(default_factory=list)

    def ImportCallRecords(
        self, request_iterator: Requests, context: grpc.ServicerContext
    ) -> pb.ImportCallRecordsResponse:
        self.request_ids.append(logs.request_id.get())
        return pb.ImportCallRecordsResponse(rows=self.act(request_iterator))


@pytest.fixture
def calls() -> Calls:
    return Calls()


@pytest.fixture
def channel(calls: Calls) -> Iterator[grpc.Channel]:
    server = Server(
        "127.0.0.1:0",
        lambda target: rpc.add_CallRecordServiceServicer_to_server(calls, target),
        service_names=[NAME],
        settings=replace(read(KitSettings, {}), service_token=SETTINGS_TOKEN),
    )
    server.start()
    with grpc.insecure_channel(server.address) as channel:
        yield channel
    server.stop()


def send(channel: grpc.Channel, requests: Iterator[bytes], *, token: str = SETTINGS_TOKEN) -> int:
    call = channel.stream_unary(METHOD, response_deserializer=pb.ImportCallRecordsResponse.FromString)
    metadata = [("authorization", f"Bearer {token}"), ("x-request-id", "night-1")]
    answer: pb.ImportCallRecordsResponse = call(requests, timeout=20, metadata=metadata)
    return answer.rows


def request(size: int) -> bytes:
    return pb.ImportCallRecordsRequest(chunk=b"x" * size).SerializeToString()


def code_of(send: Callable[[], object]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as refused:
        send()
    return refused.value.code(), refused.value.details() or ""


def test_a_stream_has_its_span_and_request_id(channel: grpc.Channel, calls: Calls, spans: InMemorySpanExporter) -> None:
    assert send(channel, iter([request(3), request(4)])) == 7
    assert calls.request_ids == ["night-1"]
    (span,) = [span for span in spans.get_finished_spans() if span.name == METHOD[1:]]
    assert span.attributes is not None
    assert span.attributes["rpc.response.status_code"] == "OK"


def test_a_wrong_token_is_refused_before_anything_is_read(channel: grpc.Channel, calls: Calls) -> None:
    code, _ = code_of(lambda: send(channel, iter([request(1)]), token="wrong"))
    assert code is grpc.StatusCode.UNAUTHENTICATED
    assert calls.request_ids == []


def test_bytes_that_are_no_message_are_the_callers_fault(channel: grpc.Channel) -> None:
    code, text = code_of(lambda: send(channel, iter([request(1), b"\xff\xff", request(1)])))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "no such message" in text


def test_an_error_amid_the_stream_arrives_as_such(channel: grpc.Channel, calls: Calls) -> None:
    def refuse(requests: Requests) -> int:
        next(requests)
        raise InvalidArgument.at("chunk", "is no CSV")

    calls.act = refuse
    assert code_of(lambda: send(channel, iter([request(9)] * 50))) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "chunk: is no CSV",
    )


def test_a_caller_that_breaks_off_is_no_fault_of_ours(
    channel: grpc.Channel, calls: Calls, spans: InMemorySpanExporter, caplog: pytest.LogCaptureFixture
) -> None:
    reached = threading.Event()

    def endless() -> Iterator[bytes]:
        while True:
            yield request(1)
            if calls.request_ids:
                reached.set()

    call = channel.stream_unary(METHOD).future(endless(), timeout=20, metadata=[("authorization", "Bearer token")])
    assert reached.wait(20)
    call.cancel()
    span = eventually(lambda: next((each for each in spans.get_finished_spans() if each.name == METHOD[1:]), None))
    assert span.attributes is not None
    assert span.attributes["rpc.response.status_code"] == "CANCELLED"
    assert "call failed" not in caplog.messages


def test_what_is_broken_off_is_never_taken_for_all(channel: grpc.Channel, calls: Calls) -> None:
    """A cancelled call may look for a moment like one whose caller has sent all."""
    ends: list[str] = []

    def count(requests: Requests) -> int:
        try:
            size = sum(len(request.chunk) for request in requests)
        except Exception as error:
            ends.append(type(error).__name__)
            raise
        ends.append("all")
        return size

    calls.act = count
    for number in range(1, 41):
        never = threading.Event()

        def half(never: threading.Event = never) -> Iterator[bytes]:
            yield request(1)
            never.wait(20)

        call = channel.stream_unary(METHOD).future(half(), timeout=20, metadata=[("authorization", "Bearer token")])
        eventually(lambda: len(calls.request_ids) == number)  # noqa: B023 - called at once
        call.cancel()
        eventually(lambda: len(ends) == number)  # noqa: B023
        never.set()
    assert ends == ["Cancelled"] * 40
