"""Lists of calls. All calls are made up."""

from datetime import timedelta

import grpc
import pytest
from calling import LONDON, LONDON_2, MUMBAI_MOBILE, START, Caller, ingest, record, refused
from usage_harness import Client, timestamp

from meterscope.usage.v1 import call_record_service_pb2 as pb


@pytest.fixture(scope="module")
def listed(caller: Caller, client: Client) -> str:
    customer = client.put_customer()
    callees = [MUMBAI_MOBILE, LONDON, LONDON_2, "+441132960001", "1001"]
    calls = [
        record(customer, f"c{index}", callee, start_time=timestamp(START + timedelta(hours=index)))
        for index, callee in enumerate(callees)
    ]
    assert ingest(caller, *calls).accepted == 5
    return customer


def ids(caller: Caller, customer: str, **chosen: object) -> list[str]:
    return [call.id for call in caller.calls(customer, **chosen)]


def test_by_time_type_and_destination(caller: Caller, listed: str) -> None:
    assert ids(caller, listed) == ["c0", "c1", "c2", "c3", "c4"]
    times = {"start_time": timestamp(START + timedelta(hours=1)), "end_time": timestamp(START + timedelta(hours=3))}
    assert ids(caller, listed, **times) == ["c1", "c2"]
    assert ids(caller, listed, call_type=pb.CALL_TYPE_OUTBOUND) == ["c0", "c2", "c3"]
    # The caller is one of the customer's own numbers.
    assert ids(caller, listed, call_type=pb.CALL_TYPE_INTERNAL) == ["c1", "c4"]
    assert ids(caller, listed, country="GB") == ["c1", "c2", "c3"]
    assert ids(caller, listed, callee_prefix="+4420") == ["c1", "c2"]
    assert ids(caller, listed, callee_prefix="+44%") == []


def test_page_by_page(caller: Caller, listed: str) -> None:
    assert ids(caller, listed, page_size=2) == ["c0", "c1", "c2", "c3", "c4"]
    first = caller.stub.ListCallRecords(pb.ListCallRecordsRequest(customer_id=listed, page_size=2))
    other = pb.ListCallRecordsRequest(customer_id=listed, page_token=first.next_page_token, country="GB")
    assert refused(caller.stub.ListCallRecords, other).code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("chosen", "code"),
    [
        ({"customer_id": "cus_none"}, grpc.StatusCode.NOT_FOUND),
        ({"customer_id": ""}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"country": "\0"}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"callee_prefix": "+" * 17}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"call_type": 77}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"page_size": -1}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"page_token": "x"}, grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
def test_bad_questions(caller: Caller, listed: str, chosen: dict[str, object], code: grpc.StatusCode) -> None:
    request = pb.ListCallRecordsRequest(**{"customer_id": listed, **chosen})  # type: ignore[arg-type]
    assert refused(caller.stub.ListCallRecords, request).code() is code
