"""Whatever a request holds, the answer names what is wrong with it: no input is a fault of ours."""

import random
from typing import Any, Final

import grpc
import pytest
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc
from usage_harness import Client

from meterscope.usage.v1 import event_service_pb2 as events_pb
from services.kit import paging
from services.usage.__main__ import SERVICE_NAMES

pytestmark = pytest.mark.usefixtures("meters", "worker")

REQUESTS: Final = 150
ROUGH: Final = 60
SEED: Final = 7
# Every method that the server has: a new one is tried without being named here.
METHODS: Final = tuple(
    method for name in SERVICE_NAMES for method in descriptor_pool.Default().FindServiceByName(name).methods
)
# Answers that blame the service, or ask for a repeat that would end likewise.
BLAMING: Final = {
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
}
# Words that get a request past its first checks, and words that should not.
WORDS = (
    *("", "cus_1", "cus_1", "cus_1", "requests", "requests", "bytes", "http.request", "UTC", "Asia/Kolkata"),
    *("key", "a\0b", "\0", "x" * 257, "é" * 200, "😀", "'; --", "{}", "\\u0000", "00f067aa0ba902b7" * 2),
    paging.encode_token(["\0"], {}),
    *("localtime", "posixrules", "Factory", "x" * 20_000, "../UTC", "right/UTC", "Etc/GMT+3", "America", "/etc/passwd"),
)
NUMBERS = (
    "0",
    "1",
    "12.5",
    "1e3",
    "-1",
    "NaN",
    "Infinity",
    "sNaN",
    "1e999999999",
    "1e-12",
    "9" * 28,
    "9" * 40,
    "",
    "x",
    "٣",
)
INTEGERS = (0, 0, 1, 1, 2, 100, 2**31 - 1, -1, -(2**31))
LONGS = (*INTEGERS, 2**63 - 1, -(2**63), 1_780_000_000, 1_790_000_000, 946_684_800, 253_402_300_800)


def build(kind: type[Message], choose: random.Random, depth: int = 0) -> Message:
    """A message of random fields."""
    message = kind()
    for field in message.DESCRIPTOR.fields:
        if choose.random() < 0.15 or depth > 4:
            continue
        if field.message_type and field.message_type.GetOptions().map_entry:
            _fill_map(getattr(message, field.name), field, choose, depth)
        elif field.is_repeated:
            values = getattr(message, field.name)
            for _ in range(choose.randint(0, 3)):
                if field.message_type:
                    values.add().CopyFrom(build(type(values.add()), choose, depth + 1))
                else:
                    values.append(_scalar(field, choose))
        elif field.message_type:
            part = getattr(message, field.name)
            part.SetInParent()
            part.CopyFrom(build(type(part), choose, depth + 1))
        else:
            setattr(message, field.name, _scalar(field, choose))
    return message


def _fill_map(values: Any, field: Any, choose: random.Random, depth: int) -> None:
    value = field.message_type.fields_by_name["value"]
    for _ in range(choose.randint(0, 3)):
        name = choose.choice(WORDS)
        if value.message_type:
            values[name].CopyFrom(build(type(values[name]), choose, depth + 1))
        else:
            values[name] = _scalar(value, choose)


def _scalar(field: Any, choose: random.Random) -> Any:
    match field.type:
        case FieldDescriptor.TYPE_STRING:
            return choose.choice(NUMBERS if field.containing_type.name == "Decimal" else WORDS)
        case FieldDescriptor.TYPE_BYTES:
            return choose.choice(WORDS).encode() + choose.randbytes(choose.randint(0, 9))
        case FieldDescriptor.TYPE_BOOL:
            return choose.random() < 0.5
        case FieldDescriptor.TYPE_INT64:
            return choose.choice(LONGS)
        case FieldDescriptor.TYPE_DOUBLE | FieldDescriptor.TYPE_FLOAT:
            return choose.choice((0.0, -1.5, 1e30, float("nan"), float("inf")))
        case FieldDescriptor.TYPE_ENUM:
            return choose.choice([*(value.number for value in field.enum_type.values), 99])
        case FieldDescriptor.TYPE_UINT32 | FieldDescriptor.TYPE_UINT64:
            return choose.choice([number for number in INTEGERS if number >= 0])
        case _:
            return choose.choice(INTEGERS)


def answer(channel: grpc.Channel, method: MethodDescriptor, requests: list[bytes]) -> tuple[grpc.StatusCode, str]:
    """Send bytes to a method, several where it takes a stream, and say how that ended."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    try:
        if method.client_streaming and method.server_streaming:
            list(channel.stream_stream(path)(iter(requests), timeout=30))
        elif method.client_streaming:
            channel.stream_unary(path)(iter(requests), timeout=30)
        elif method.server_streaming:
            list(channel.unary_stream(path)(requests[0], timeout=30))
        else:
            channel.unary_unary(path)(requests[0], timeout=30)
    except grpc.RpcError as error:
        return error.code(), error.details() or ""
    return grpc.StatusCode.OK, ""


def rough(request: bytes, choose: random.Random) -> bytes:
    """Bytes that may be no message: a request with some of them changed, cut off, or none of it."""
    kind = choose.randint(0, 2)
    if kind == 0 or not request:
        return choose.randbytes(choose.randint(1, 200))
    if kind == 1:
        return request[: choose.randrange(len(request))]
    changed = bytearray(request)
    for _ in range(choose.randint(1, 8)):
        changed[choose.randrange(len(changed))] = choose.randrange(256)
    return bytes(changed)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_no_request_is_a_fault_of_ours(channel: grpc.Channel, client: Client, method: MethodDescriptor) -> None:
    client.put_customer("cus_1")
    choose = random.Random(f"{SEED} {method.full_name}")
    kind = message_factory.GetMessageClass(method.input_type)
    for _ in range(REQUESTS):
        requests = [build(kind, choose) for _ in range(3 if method.client_streaming else 1)]
        code, details = answer(channel, method, [request.SerializeToString() for request in requests])
        assert code not in BLAMING, f"{code}: {details}\n{str(requests)[:2000]}"
    for _ in range(ROUGH):
        parts = [rough(build(kind, choose).SerializeToString(), choose) for _ in range(3)]
        code, details = answer(channel, method, parts)
        assert code not in BLAMING, f"{code}: {details}\n{[part[:200].hex() for part in parts]}"
    health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=30)
    assert health.status == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize("key", [[], ["x"], ["1", "x"], ["9" * 30, "x", "y"], ["1", "2", "3", "4"]])
def test_a_made_up_page_token_is_refused(client: Client, key: list[str]) -> None:
    customer = client.put_customer()
    events = {"customer_id": customer, "start": "None", "end": "None", "type": "", "source": "", "state": "None"}
    held = {"customer_key": "", "reason": ""}
    for call, request in (
        (
            client.events.ListEvents,
            events_pb.ListEventsRequest(customer_id=customer, page_token=paging.encode_token(key, events)),
        ),
        (
            client.events.ListQuarantinedEvents,
            events_pb.ListQuarantinedEventsRequest(page_token=paging.encode_token(key, held)),
        ),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            call(request)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
