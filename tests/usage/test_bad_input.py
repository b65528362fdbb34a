"""Whatever a request holds, the answer names what is wrong with it: no input is a fault of ours."""

import random
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from usage_harness import Client

from meterscope.usage.v1 import event_service_pb2 as events_pb
from meterscope.usage.v1 import limit_service_pb2 as limits_pb
from meterscope.usage.v1 import meter_service_pb2 as meters_pb
from meterscope.usage.v1 import usage_service_pb2 as usage_pb
from services.kit import paging

pytestmark = pytest.mark.usefixtures("meters", "worker")

REQUESTS: tuple[type[Message], ...] = (
    events_pb.IngestEventsRequest,
    events_pb.GetEventRequest,
    events_pb.ListEventsRequest,
    events_pb.ListQuarantinedEventsRequest,
    events_pb.ReplayQuarantinedEventsRequest,
    meters_pb.CreateMeterRequest,
    meters_pb.GetMeterRequest,
    meters_pb.ListMetersRequest,
    limits_pb.CheckLimitRequest,
    limits_pb.ListLimitsRequest,
    limits_pb.PutEntitlementsRequest,
    usage_pb.QueryUsageRequest,
    usage_pb.SealUsageRequest,
)
# Words that get a request past its first checks, and words that should not.
WORDS = (
    *("", "cus_1", "cus_1", "cus_1", "requests", "requests", "bytes", "http.request", "UTC", "Asia/Kolkata"),
    *("key", "a\0b", "\0", "x" * 257, "é" * 200, "😀", "'; --", "{}", "\\u0000", "00f067aa0ba902b7" * 2),
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
        if choose.random() < 0.15 or depth > 3:
            continue
        if field.message_type and field.message_type.GetOptions().map_entry:
            _fill_map(getattr(message, field.name), field, choose)
        elif field.is_repeated:
            values = getattr(message, field.name)
            for _ in range(choose.randint(0, 3)):
                if field.message_type:
                    values.add().CopyFrom(build(type(values.add()), choose, depth + 1))
                else:
                    values.append(_scalar(field, choose))
        elif field.message_type:
            part = getattr(message, field.name)
            part.CopyFrom(build(type(part), choose, depth + 1))
        else:
            setattr(message, field.name, _scalar(field, choose))
    return message


def _fill_map(values: Any, field: Any, choose: random.Random) -> None:
    for _ in range(choose.randint(0, 3)):
        name = choose.choice(WORDS)
        if field.message_type.fields_by_name["value"].message_type:
            values[name].value = choose.choice(NUMBERS)
        else:
            values[name] = choose.choice(WORDS)


def _scalar(field: Any, choose: random.Random) -> Any:
    if field.type == FieldDescriptor.TYPE_STRING:
        return choose.choice(NUMBERS if field.containing_type.name == "Decimal" else WORDS)
    if field.type == FieldDescriptor.TYPE_BOOL:
        return choose.random() < 0.5
    if field.type == FieldDescriptor.TYPE_INT64:
        return choose.choice(LONGS)
    if field.type == FieldDescriptor.TYPE_ENUM:
        return choose.choice((0, 1, 2, 3, 99))
    return choose.choice(INTEGERS)


def _method(client: Client, kind: type[Message]) -> Callable[..., Message]:
    name = kind.__name__.removesuffix("Request")
    stubs = (client.events, client.meters, client.limits, client.usage)
    call: Callable[..., Message] = next(getattr(stub, name) for stub in stubs if hasattr(stub, name))
    return call


@pytest.mark.parametrize("kind", REQUESTS, ids=lambda kind: kind.__name__)
def test_random_requests_are_never_internal_errors(client: Client, kind: type[Message]) -> None:
    client.put_customer("cus_1")
    call, choose = _method(client, kind), random.Random(7)
    for _ in range(60):
        request = build(kind, choose)
        try:
            call(request, timeout=30)
        except grpc.RpcError as error:
            assert error.code() in {  # noqa: PT017 - most of the calls may fail, but only so
                grpc.StatusCode.INVALID_ARGUMENT,
                grpc.StatusCode.NOT_FOUND,
                grpc.StatusCode.ALREADY_EXISTS,
                grpc.StatusCode.FAILED_PRECONDITION,
            }, (error.details(), request)


@pytest.mark.parametrize("key", [[], ["x"], ["1", "x"], ["9" * 30, "x", "y"], ["1", "2", "3", "4"]])
def test_a_made_up_page_token_is_refused(client: Client, key: list[str]) -> None:
    customer = client.put_customer()
    events = {"customer_id": customer, "start": "None", "end": "None", "type": "", "source": ""}
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
