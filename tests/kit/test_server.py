"""The kit's server and channel, over real gRPC, around the usage contract's EventService."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import grpc
import psycopg
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status

from meterscope.usage.v1 import event_service_pb2 as pb
from meterscope.usage.v1 import event_service_pb2_grpc as rpc
from services.kit import logs, telemetry
from services.kit.channel import open_channel
from services.kit.config import KitSettings
from services.kit.errors import FieldViolation, InvalidArgument, Unavailable
from services.kit.server import OpenAddress, Server
from services.kit.settings import read

SETTINGS = replace(read(KitSettings, {}), version="1.0")
NAME = "meterscope.usage.v1.EventService"


@dataclass
class Events(rpc.EventServiceServicer):
    """Does what the test says and keeps what it saw."""

    act: Callable[[], pb.Event] = pb.Event
    seen: list[dict[str, Any]] = field(default_factory=list)

    def GetEvent(self, request: pb.GetEventRequest, context: grpc.ServicerContext) -> pb.Event:
        self.seen.append(
            {
                "request_id": logs.request_id.get(),
                "trace_id": telemetry.current_trace_id(),
                "remaining": context.time_remaining(),
            }
        )
        return self.act()


@pytest.fixture
def events() -> Events:
    return Events()


@pytest.fixture
def server(events: Events) -> Iterator[Server]:
    made = start(events)
    yield made
    made.stop()


def start(events: Events, settings: KitSettings = SETTINGS) -> Server:
    made = Server(
        "127.0.0.1:0",
        lambda target: rpc.add_EventServiceServicer_to_server(events, target),
        service_names=[NAME],
        settings=settings,
    )
    made.start()
    return made


@pytest.fixture
def stub(server: Server) -> Iterator[rpc.EventServiceStub]:
    with open_channel(server.address, SETTINGS) as channel:
        yield rpc.EventServiceStub(channel)


def details(error: grpc.RpcError) -> dict[str, Any]:
    status = rpc_status.from_call(error)
    assert status is not None
    found: dict[str, Any] = {}
    for packed in status.details:
        for kind in (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, error_details_pb2.RetryInfo):
            if packed.Is(kind.DESCRIPTOR):
                found[kind.DESCRIPTOR.name] = kind.FromString(packed.value)
    return found


def test_a_service_error_arrives_as_a_status_with_reason_and_fields(events: Events, stub: rpc.EventServiceStub) -> None:
    def refuse() -> pb.Event:
        raise InvalidArgument(
            "two things are wrong", reason="BAD", metadata={"a": "b"}, violations=[FieldViolation("x.y", "why")]
        )

    events.act = refuse
    with pytest.raises(grpc.RpcError) as refused:
        stub.GetEvent(pb.GetEventRequest())
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert refused.value.details() == "two things are wrong"
    found = details(refused.value)
    assert (found["ErrorInfo"].reason, found["ErrorInfo"].domain, dict(found["ErrorInfo"].metadata)) == (
        "BAD",
        "meterscope",
        {"a": "b"},
    )
    assert [(v.field, v.description) for v in found["BadRequest"].field_violations] == [("x.y", "why")]


def test_an_error_that_quotes_much_still_arrives(events: Events, stub: rpc.EventServiceStub) -> None:
    def refuse() -> pb.Event:
        # The dearest character: four bytes, percent-encoded to twelve in the message.
        much = "\N{PILE OF POO}" * 100_000
        violations = [FieldViolation(f"x[{index}]", f"is {much}; leave it out") for index in range(500)]
        raise InvalidArgument(f"{much} is too much; leave it out", metadata={"a": much}, violations=violations)

    events.act = refuse
    with pytest.raises(grpc.RpcError) as refused:
        stub.GetEvent(pb.GetEventRequest())
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert refused.value.details().endswith("is too much; leave it out")
    first = details(refused.value)["BadRequest"].field_violations[0]
    assert first.field == "x[0]"
    assert first.description.endswith("; leave it out")


def test_a_fault_of_ours_says_nothing_of_the_inside(events: Events, stub: rpc.EventServiceStub) -> None:
    def fail() -> pb.Event:
        raise ZeroDivisionError("the inside")

    events.act = fail
    with pytest.raises(grpc.RpcError) as refused:
        stub.GetEvent(pb.GetEventRequest())
    assert refused.value.code() == grpc.StatusCode.INTERNAL
    assert "inside" not in refused.value.details()


def test_unavailable_is_tried_again_and_says_when_to_come_back(events: Events, stub: rpc.EventServiceStub) -> None:
    def away() -> pb.Event:
        raise Unavailable("away", retry_after=0.25)

    events.act = away
    with pytest.raises(grpc.RpcError) as refused:
        stub.GetEvent(pb.GetEventRequest())
    assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
    assert details(refused.value)["RetryInfo"].retry_delay.ToMilliseconds() == 250
    assert len(events.seen) == 5  # the first try and four more


def test_a_call_that_heals_is_not_noticed_by_the_caller(events: Events, stub: rpc.EventServiceStub) -> None:
    left = [Unavailable("away"), Unavailable("away")]

    def heal() -> pb.Event:
        if left:
            raise left.pop()
        return pb.Event(id="e1")

    events.act = heal
    assert stub.GetEvent(pb.GetEventRequest()).id == "e1"


@pytest.mark.parametrize("data", [b"\xff\xff\xff", b"\x0a\x02\xc3\x28"])  # no message; a string that is not UTF-8
def test_undecodable_bytes_are_the_callers_fault(server: Server, data: bytes) -> None:
    with open_channel(server.address, SETTINGS) as channel:
        raw = channel.unary_unary(f"/{NAME}/GetEvent", request_serializer=bytes, response_deserializer=bytes)
        with pytest.raises(grpc.RpcError) as refused:
            raw(data)
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert details(refused.value)["ErrorInfo"].reason == "UNDECODABLE"


def test_a_message_above_32_mib_is_refused(events: Events, server: Server) -> None:
    options = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(server.address, options=options) as channel, pytest.raises(grpc.RpcError) as refused:
        rpc.EventServiceStub(channel).GetEvent(pb.GetEventRequest(event_id="x" * (32 * 1024 * 1024 + 1)))
    assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert not events.seen


def test_calls_have_a_deadline_and_a_request_id_without_asking(events: Events, stub: rpc.EventServiceStub) -> None:
    _, call = stub.GetEvent.with_call(pb.GetEventRequest(), metadata=[("x-request-id", "mine")])
    assert events.seen[0]["request_id"] == "mine"
    assert 0 < events.seen[0]["remaining"] <= 10
    assert ("x-request-id", "mine") in [tuple(item) for item in call.trailing_metadata()]


def test_a_wrong_service_token_is_refused(events: Events) -> None:
    guarded = start(events, replace(SETTINGS, service_token="right"))
    try:
        with (
            open_channel(guarded.address, replace(SETTINGS, service_token="wrong")) as channel,
            pytest.raises(grpc.RpcError) as refused,
        ):
            rpc.EventServiceStub(channel).GetEvent(pb.GetEventRequest())
        assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
        with open_channel(guarded.address, replace(SETTINGS, service_token="right")) as channel:
            rpc.EventServiceStub(channel).GetEvent(pb.GetEventRequest())
        assert len(events.seen) == 1
    finally:
        guarded.stop()


def test_health_and_reflection_answer(server: Server) -> None:
    with grpc.insecure_channel(server.address) as channel:
        check = health_pb2_grpc.HealthStub(channel).Check
        assert check(health_pb2.HealthCheckRequest(service=NAME)).status == health_pb2.HealthCheckResponse.SERVING
        ask = reflection_pb2.ServerReflectionRequest(list_services="")
        answer = next(iter(reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([ask]))))
        assert NAME in [service.name for service in answer.list_services_response.service]


def test_without_a_token_a_server_listens_on_loopback_only(events: Events) -> None:
    with pytest.raises(OpenAddress, match="METERSCOPE_SERVICE_TOKEN"):
        Server("0.0.0.0:0", lambda _: None, service_names=[], settings=SETTINGS)
    assert not events.seen


@pytest.mark.parametrize("address", ["", "nowhere", "127.0.0.1", ":8081", "127.0.0.1:http"])
def test_an_address_that_is_none_is_named(address: str) -> None:
    with pytest.raises(OpenAddress, match=f"'{address}' is no host:port; name one such as"):
        Server(address, lambda _: None, service_names=[], settings=SETTINGS)


def test_stopping_lets_a_running_call_end(events: Events) -> None:
    running, go_on = threading.Event(), threading.Event()

    def slow() -> pb.Event:
        running.set()
        assert go_on.wait(5)
        return pb.Event(id="done")

    events.act = slow
    slow_server = start(events)
    with open_channel(slow_server.address, SETTINGS) as channel:
        future = rpc.EventServiceStub(channel).GetEvent.future(pb.GetEventRequest())
        assert running.wait(5)
        stopper = threading.Thread(target=slow_server.stop)
        stopper.start()
        go_on.set()
        assert future.result().id == "done"
        stopper.join(5)
        assert not stopper.is_alive()


def test_a_text_that_postgresql_cannot_keep_is_named_by_its_field(events: Events, stub: rpc.EventServiceStub) -> None:
    def refuse() -> pb.Event:
        raise psycopg.DataError("PostgreSQL text fields cannot contain NUL (0x00) bytes")

    events.act = refuse
    with pytest.raises(grpc.RpcError) as refused:
        stub.GetEvent(pb.GetEventRequest(customer_id="cus_1", event_id="a\0b"))
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert details(refused.value)["BadRequest"].field_violations[0].field == "event_id"
