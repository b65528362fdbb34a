"""Call records, one by one: what is made of each, and what is wrong with it. All calls are made up."""

import grpc
import pytest
from calling import LONDON, LONDON_2, MUMBAI_MOBILE, START, Caller, counts, ingest, record, refused
from google.type import decimal_pb2
from usage_harness import Client, timestamp, utc

from meterscope.usage.v1 import call_record_service_pb2 as pb
from meterscope.usage.v1 import event_service_pb2 as events_pb


def test_a_call_is_stored_once_with_what_its_numbers_say(caller: Caller, customer: str) -> None:
    # 0 98765 43210 is dialled in India: an Indian mobile number, whose national destination code is 98765.
    call = record(customer, "c1", "098765 43210", trunk="trunk-1")
    assert counts(ingest(caller, call)) == (1, 0, 0, 0, 0)
    assert counts(ingest(caller, call)) == (0, 1, 0, 0, 0)
    (stored,) = caller.calls(customer)
    assert (stored.caller, stored.callee, stored.country) == (LONDON, MUMBAI_MOBILE, "IN")
    assert (stored.destination_prefix, stored.number_type, stored.trunk) == ("+9198765", "mobile", "trunk-1")
    assert stored.call_type == pb.CALL_TYPE_OUTBOUND
    assert stored.disposition == pb.DISPOSITION_ANSWERED
    assert (stored.duration_seconds.value, stored.billable_seconds.value) == ("65", "65")
    assert (stored.source, stored.start_time) == ("cdr", timestamp(START))


def test_the_same_call_written_otherwise_is_the_same(caller: Caller, customer: str) -> None:
    first = record(customer, "c1", "0091 98765 43210")
    second = record(customer, "c1", "+91-98765-43210", duration_seconds=decimal_pb2.Decimal(value="65.0"))
    assert counts(ingest(caller, first)) == (1, 0, 0, 0, 0)
    assert counts(ingest(caller, second)) == (0, 1, 0, 0, 0)
    longer = record(customer, "c1", duration_seconds=decimal_pb2.Decimal(value="66"))
    assert counts(ingest(caller, longer)) == (0, 0, 1, 0, 0)


@pytest.mark.parametrize(
    ("caller_number", "callee", "expected"),
    [
        ("1001", "1002", pb.CALL_TYPE_INTERNAL),
        ("1001", MUMBAI_MOBILE, pb.CALL_TYPE_OUTBOUND),
        (MUMBAI_MOBILE, "1001", pb.CALL_TYPE_INBOUND),
        (MUMBAI_MOBILE, LONDON, pb.CALL_TYPE_INBOUND),
        ("anonymous", LONDON, pb.CALL_TYPE_INBOUND),
        ("1001", LONDON, pb.CALL_TYPE_INTERNAL),
        # 1800 numbers of India, 800 numbers of all countries.
        ("1001", "1800 11 4000", pb.CALL_TYPE_TOLL_FREE),
        ("1001", "+800 1234 5678", pb.CALL_TYPE_TOLL_FREE),
        (LONDON_2, LONDON_2, pb.CALL_TYPE_OUTBOUND),
    ],
)
def test_the_type_follows_from_the_numbers(
    caller: Caller, customer: str, caller_number: str, callee: str, expected: int
) -> None:
    assert ingest(caller, record(customer, "c", callee, caller=caller_number)).accepted == 1
    assert caller.calls(customer)[0].call_type == expected


def test_what_is_given_is_kept(caller: Caller, customer: str) -> None:
    call = record(
        customer,
        "c",
        call_type=pb.CALL_TYPE_INBOUND,
        disposition=pb.DISPOSITION_BUSY,
        billable_seconds=decimal_pb2.Decimal(value="1.5"),
    )
    assert ingest(caller, call).accepted == 1
    (stored,) = caller.calls(customer)
    assert (stored.call_type, stored.disposition) == (pb.CALL_TYPE_INBOUND, pb.DISPOSITION_BUSY)
    assert stored.billable_seconds.value == "1.5"


def test_a_busy_call_has_no_billable_seconds(caller: Caller, customer: str) -> None:
    assert ingest(caller, record(customer, "c", disposition=pb.DISPOSITION_BUSY)).accepted == 1
    (stored,) = caller.calls(customer)
    assert (stored.duration_seconds.value, stored.billable_seconds.value) == ("65", "0")


@pytest.mark.parametrize(
    ("change", "field", "reason"),
    [
        ({"id": ""}, "id", "MISSING"),
        ({"id": "x" * 257}, "id", "TOO_LONG"),
        ({"callee": ""}, "callee", "MISSING"),
        ({"callee": "12\0"}, "callee", "BAD_NUMBER"),
        ({"callee": "+4412"}, "callee", "BAD_NUMBER"),
        ({"callee": "not a number"}, "callee", "BAD_NUMBER"),
        ({"callee": "9" * 65}, "callee", "BAD_NUMBER"),
        ({"caller": "+0123"}, "caller", "BAD_NUMBER"),
        ({"trunk": "a\0"}, "trunk", "NUL"),
        ({"trunk": "x" * 257}, "trunk", "TOO_LONG"),
        ({"source": "x" * 257}, "source", "TOO_LONG"),
        ({"trace_id": "abc"}, "trace_id", "BAD_TRACE_ID"),
        ({"duration_seconds": decimal_pb2.Decimal(value="NaN")}, "duration_seconds", "BAD_DURATION"),
        ({"duration_seconds": decimal_pb2.Decimal(value="-1")}, "duration_seconds", "BAD_DURATION"),
        ({"duration_seconds": decimal_pb2.Decimal(value="")}, "duration_seconds", "BAD_DURATION"),
        ({"billable_seconds": decimal_pb2.Decimal(value="1" * 29)}, "billable_seconds", "BAD_DURATION"),
        ({"billable_seconds": decimal_pb2.Decimal(value="31622401")}, "billable_seconds", "BAD_DURATION"),
        ({"call_type": 77}, "call_type", "UNKNOWN_VALUE"),
        ({"disposition": 77}, "disposition", "UNKNOWN_VALUE"),
        ({"start_time": timestamp(utc(1999, 12, 31))}, "start_time", "TIME_OUT_OF_RANGE"),
        ({"start_time": timestamp(utc(9999, 12, 31))}, "start_time", "TIME_IN_FUTURE"),
        ({"start_time": None}, "start_time", "MISSING"),
        ({"customer_key": "acme"}, "customer_key", "TWO_CUSTOMERS"),
        ({"customer_id": ""}, "customer_id", "NO_CUSTOMER"),
    ],
)
def test_a_bad_record_rejects_itself_and_names_its_field(
    caller: Caller, customer: str, change: dict[str, object], field: str, reason: str
) -> None:
    bad = record(customer, "bad")
    for name, value in change.items():
        if value is None:
            bad.ClearField(name)  # type: ignore[arg-type]
        elif isinstance(value, str | int):
            setattr(bad, name, value)
        else:
            getattr(bad, name).CopyFrom(value)
    answer = ingest(caller, record(customer, "before"), bad, record(customer, "after"))
    assert counts(answer) == (2, 0, 0, 0, 1)
    result = answer.results[1]
    assert (result.index, result.field, result.reason) == (1, field, reason), result
    assert result.message


def test_a_national_number_without_a_region_says_what_to_do(caller: Caller, customer: str) -> None:
    answer = ingest(caller, record(customer, "c", "02079460018"), numbering=pb.Numbering())
    assert "name the default_region" in answer.results[0].message


@pytest.mark.parametrize(
    ("numbering", "field"),
    [
        (pb.Numbering(default_region="XX"), "numbering.default_region"),
        (pb.Numbering(own_prefixes=["44"]), "numbering.own_prefixes[0]"),
        (pb.Numbering(own_prefixes=["+44"] * 1001), "numbering.own_prefixes"),
        (pb.Numbering(extension_digits=9), "numbering.extension_digits"),
        (pb.Numbering(extension_digits=-1), "numbering.extension_digits"),
    ],
)
def test_a_bad_numbering_is_refused(caller: Caller, customer: str, numbering: pb.Numbering, field: str) -> None:
    error = refused(ingest, caller, record(customer, "c"), numbering=numbering)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error.details().startswith(f"{field}: ")


@pytest.mark.parametrize("count", [0, 10_001])
def test_an_empty_or_too_large_batch_is_refused(caller: Caller, customer: str, count: int) -> None:
    error = refused(ingest, caller, *[record(customer, "c")] * count)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_an_unknown_customers_call_is_held(caller: Caller, client: Client) -> None:
    call = record("", "held-1", customer_key="later-telecom")
    assert counts(ingest(caller, call)) == (0, 0, 0, 1, 0)
    client.put_customer(keys=["later-telecom"])
    request = events_pb.ReplayQuarantinedEventsRequest(customer_key="later-telecom", request_id="held-1")
    assert client.events.ReplayQuarantinedEvents(request).accepted == 1
    assert counts(ingest(caller, call)) == (0, 1, 0, 0, 0)
