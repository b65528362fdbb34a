"""Events in: each once, each with its own result."""

import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import chain, count
from types import SimpleNamespace

import grpc
import pytest
from usage_harness import Client, caller_in, event, utc

from meterscope.usage.v1 import event_service_pb2 as pb

pytestmark = pytest.mark.usefixtures("meters", "worker")


def test_an_accepted_event_is_stored_and_counted(client: Client) -> None:
    customer = client.put_customer()
    time = datetime.now(UTC).replace(microsecond=123456)
    sent = event(customer, time=time, quantities={"bytes": "1500"}, attributes={"method": "GET"})

    assert client.outcomes(sent) == ["ACCEPTED"]

    request = pb.GetEventRequest(customer_id=customer, event_id=sent.id, source=sent.source)
    stored = client.events.GetEvent(request)
    assert stored.time.ToDatetime(UTC) == time
    assert stored.quantities["bytes"].value == "1500"
    assert dict(stored.attributes) == {"method": "GET"}
    assert client.total(customer, "requests") == 1
    assert client.total(customer, "bytes") == 1500


def test_the_same_event_again_is_a_duplicate_and_other_content_a_conflict(client: Client) -> None:
    customer = client.put_customer()
    time = datetime.now(UTC)
    first = event(customer, id="a", time=time, quantities={"bytes": "1"})
    retried = event(
        customer, id="a", time=time, quantities={"bytes": "1.0"}, trace_id="0af7651916cd43dd8448eb211c80319c"
    )
    other = event(customer, id="a", time=time, quantities={"bytes": "2"})
    elsewhere = event(customer, id="a", time=time, quantities={"bytes": "2"}, source="elsewhere")

    assert client.outcomes(first) == ["ACCEPTED"]
    assert client.outcomes(retried, other, elsewhere) == ["DUPLICATE", "CONFLICT", "ACCEPTED"]
    assert client.total(customer, "bytes") == 3


def test_duplicates_within_a_request_are_resolved_in_its_order(client: Client) -> None:
    customer = client.put_customer()
    time = datetime.now(UTC)
    one, two = (event(customer, id="a", time=time, quantities={"bytes": number}) for number in ("1", "2"))

    assert client.outcomes(one, two, one) == ["ACCEPTED", "CONFLICT", "DUPLICATE"]
    # Against what is stored, the first of a request has no precedence.
    assert client.outcomes(two, one) == ["CONFLICT", "DUPLICATE"]
    assert client.total(customer, "bytes") == 1


def test_the_same_events_at_once_and_in_other_orders_are_accepted_once(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Else the first repetition would have all that follow looked for first.
    clock = SimpleNamespace(monotonic=count(1e9, 1_000.0).__next__)
    monkeypatch.setattr("services.usage.usecases.ingest.time", clock)
    customers = [client.put_customer() for _ in range(20)]
    chance = random.Random(5)
    with ThreadPoolExecutor(4) as callers:
        for turn in range(5):
            made = [event(customer, id=f"{turn}-{number}") for customer in customers for number in range(20)]
            orders = [chance.sample(made, len(made)) for _ in range(4)]
            answers = list(callers.map(lambda order: client.outcomes(*order), orders))
            assert Counter(chain.from_iterable(answers)) == {"ACCEPTED": 400, "DUPLICATE": 1200}
    assert [client.total(customer, "requests") for customer in customers] == [100] * 20


def test_one_identity_under_two_customers_is_two_events(client: Client) -> None:
    one, two = client.put_customer(), client.put_customer(keys=["two"])

    assert client.outcomes(event(one, id="same"), event("two", id="same")) == ["ACCEPTED", "ACCEPTED"]
    assert client.total(two, "requests") == 1


def test_a_customer_is_the_same_by_id_and_by_key(client: Client) -> None:
    customer = client.put_customer(keys=["203.0.113.7"])
    time = datetime.now(UTC)

    assert client.outcomes(event(customer, id="x", time=time)) == ["ACCEPTED"]
    assert client.outcomes(event("203.0.113.7", id="x", time=time)) == ["DUPLICATE"]


NOW = datetime.now(UTC)
TOO_LONG = "x" * 257
BAD_EVENTS = {
    "id empty": (event("cus_1", id=""), "MISSING", "id"),
    "id above 256 bytes": (event("cus_1", id=TOO_LONG), "TOO_LONG", "id"),
    "id above 256 bytes in 200 characters": (event("cus_1", id="é" * 200), "TOO_LONG", "id"),
    "source above 256 bytes": (event("cus_1", source=TOO_LONG), "TOO_LONG", "source"),
    "type empty": (event("cus_1", type=""), "MISSING", "type"),
    "NUL in the id": (event("cus_1", id="a\0b"), "NUL", "id"),
    "NUL in the key": (event("key\0"), "NUL", "customer_key"),
    "NUL in an attribute": (event("cus_1", attributes={"a": "\0"}), "NUL", "attributes.a"),
    "NUL in a quantity's name": (event("cus_1", quantities={"a\0": "1"}), "NUL", "quantities"),
    "an hour ahead": (event("cus_1", time=NOW + timedelta(hours=1)), "TIME_IN_FUTURE", "time"),
    "the year 9999": (event("cus_1", time=utc(9999, 12, 31)), "TIME_IN_FUTURE", "time"),
    "the year 1969": (event("cus_1", time=utc(1969, 12, 31)), "TIME_OUT_OF_RANGE", "time"),
    "a negative quantity": (event("cus_1", quantities={"bytes": "-1"}), "NEGATIVE", "quantities.bytes"),
    "NaN": (event("cus_1", quantities={"bytes": "NaN"}), "NOT_A_NUMBER", "quantities.bytes"),
    "no number": (event("cus_1", quantities={"bytes": ""}), "NOT_A_NUMBER", "quantities.bytes"),
    "29 digits": (event("cus_1", quantities={"bytes": "1" * 29}), "TOO_MANY_DIGITS", "quantities.bytes"),
    "13 decimals": (event("cus_1", quantities={"bytes": "0." + "1" * 13}), "TOO_MANY_DECIMALS", "quantities.bytes"),
    "65 attributes": (
        event("cus_1", attributes={str(i): "" for i in range(65)}),
        "TOO_MANY_ATTRIBUTES",
        "attributes",
    ),
    "an event above 64 KiB": (event("cus_1", attributes={"a": "x" * 65_536}), "TOO_LARGE", "attributes"),
    "neither id nor key": (pb.Event(id="a", source="b", type="c", time=event("k").time), "NO_CUSTOMER", "customer_id"),
    "both id and key": (
        pb.Event(id="a", source="b", type="c", time=event("k").time, customer_id="cus_1", customer_key="k"),
        "TWO_CUSTOMERS",
        "customer_key",
    ),
    "no time": (pb.Event(id="a", source="b", type="c", customer_id="cus_1"), "MISSING", "time"),
    "no trace id": (event("cus_1", trace_id="0AF7651916CD43DD8448EB211C80319C"), "BAD_TRACE_ID", "trace_id"),
}


@pytest.mark.parametrize("case", BAD_EVENTS)
def test_a_bad_event_rejects_itself_and_not_its_batch(client: Client, case: str) -> None:
    bad, reason, field = BAD_EVENTS[case]
    customer = client.put_customer()

    response = client.ingest(event(customer), bad, event(customer))

    good_one, result, good_two = response.results
    assert (good_one.outcome, good_two.outcome) == (pb.OUTCOME_ACCEPTED, pb.OUTCOME_ACCEPTED)
    assert (result.outcome, result.reason, result.field) == (pb.OUTCOME_REJECTED, reason, field)
    assert result.message
    assert (response.accepted, response.rejected) == (2, 1)


def test_a_call_whose_events_do_not_all_count_leaves_one_line(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    customer = client.put_customer()
    unknown = [event("nobody-knows", id=f"u{number}") for number in range(2)]
    with caplog.at_level("INFO", logger="services.usage.servicer.events"):
        client.outcomes(event(customer))
        client.outcomes(event(customer, id="a"), *unknown, event(customer, id=""))
    (line,) = [record for record in caplog.records if record.name == "services.usage.servicer.events"]
    assert line.getMessage() == "events do not count: 2 quarantined, 1 rejected"
    assert (line.__dict__["events"], line.__dict__["reasons"]) == (4, ["MISSING", "UNKNOWN_CUSTOMER"])


def test_quantities_keep_28_digits_and_12_decimals(client: Client) -> None:
    customer = client.put_customer()
    large, small = "9" * 28, "0.000000000001"

    assert client.outcomes(event(customer, quantities={"bytes": large}), event(customer, quantities={"bytes": small}))

    assert client.total(customer, "bytes") == Decimal(large + ".000000000001")


@pytest.mark.parametrize("count", [0, 10_001])
def test_a_batch_of_none_or_of_too_many_fails_the_call(client: Client, count: int) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        client.ingest(*[event("cus_1") for _ in range(count)])

    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "events" in str(caught.value.details())


def test_an_event_without_a_trace_id_has_that_of_the_call(client: Client) -> None:
    customer = client.put_customer()
    sent = event(customer)
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    request = pb.IngestEventsRequest(events=[sent])

    with caller_in(trace):
        client.events.IngestEvents(request)

    named = pb.GetEventRequest(customer_id=customer, event_id=sent.id, source=sent.source)
    assert client.events.GetEvent(named).trace_id == trace


def test_events_are_listed_by_time_in_pages(client: Client) -> None:
    customer = client.put_customer()
    start = utc(2026, 3, 1)
    sent = [event(customer, id=f"n{n}", time=start + timedelta(seconds=n // 2)) for n in range(7)]
    client.ingest(*reversed(sent))

    listed, token = [], ""
    while True:
        page = client.events.ListEvents(pb.ListEventsRequest(customer_id=customer, page_size=3, page_token=token))
        listed += [each.id for each in page.events]
        token = page.next_page_token
        if not token:
            break

    assert sorted(listed) == [f"n{n}" for n in range(7)]
    assert [int(each[1]) // 2 for each in listed] == [0, 0, 1, 1, 2, 2, 3]


@pytest.mark.parametrize(
    ("customer", "source", "code"),
    [("cus_unknown", "s", grpc.StatusCode.NOT_FOUND), ("cus_\0", "s", grpc.StatusCode.INVALID_ARGUMENT)],
)
def test_an_event_that_is_not_there(client: Client, customer: str, source: str, code: grpc.StatusCode) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        client.events.GetEvent(pb.GetEventRequest(customer_id=customer, event_id="x", source=source))

    assert caught.value.code() is code
