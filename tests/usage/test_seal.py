"""Sealing, step by step; beside writers at random: test_seal_race.py."""

from datetime import datetime, timedelta
from uuid import uuid4

import grpc
import pytest
from usage_harness import Client, event, totals, utc

pytestmark = pytest.mark.usefixtures("meters", "worker")

JULY, AUGUST, SEPTEMBER = utc(2026, 7, 1), utc(2026, 8, 1), utc(2026, 9, 1)


def test_a_seal_freezes_what_was_used_and_what_is_late_belongs_to_it(client: Client) -> None:
    customer = client.put_customer()
    client.ingest(*[event(customer, time=utc(2026, 7, day), quantities={"bytes": "10"}) for day in (1, 2, 31)])
    client.ingest(event(customer, time=AUGUST, quantities={"bytes": "1000"}))

    july = client.seal(customer, JULY, AUGUST)
    assert totals(july) == {"requests": 3, "bytes": 30}

    assert client.outcomes(event(customer, time=utc(2026, 7, 15), quantities={"bytes": "5"})) == ["ACCEPTED"]
    # Usage as such has it; the seal has not.
    assert client.total(customer, "bytes", JULY, AUGUST) == 35
    assert totals(client.seal(customer, JULY, AUGUST)) == {"requests": 3, "bytes": 30}

    august = client.seal(customer, AUGUST, SEPTEMBER)
    assert totals(august) == {"requests": 1, "bytes": 1000}
    (late,) = august.late_usage
    assert late.period_end_time.ToDatetime() == AUGUST.replace(tzinfo=None)
    # Sealed and late together: 30 + 5, and 3 + 1 events.
    assert totals(late) == {"requests": 4, "bytes": 35}


def test_a_seal_says_what_made_its_totals(client: Client) -> None:
    customer = client.put_customer()
    first, second, third = (uuid4().hex for _ in range(3))
    for time, trace in ((utc(2026, 7, 2, 9), first), (utc(2026, 7, 2, 10), second), (utc(2026, 7, 3), third)):
        client.ingest(event(customer, time=time, quantities={"bytes": "1"}, trace_id=trace))

    seal = client.seal(customer, JULY, AUGUST)

    (requests,) = [total for total in seal.totals if total.meter == "requests"]
    assert (requests.event_type, requests.unit, requests.event_count) == ("http.request", "requests", 3)
    # One a day at the most.
    assert list(requests.sample_trace_ids) == [first, third]


def test_a_part_of_a_day_has_a_trace_too(client: Client) -> None:
    customer = client.put_customer()
    noon = utc(2026, 7, 2, 12)
    before, after = (uuid4().hex for _ in range(2))
    client.ingest(event(customer, time=noon - timedelta(hours=1), trace_id=before))
    client.ingest(event(customer, time=noon + timedelta(hours=1), trace_id=after))

    for start, end, trace in ((JULY, noon, before), (noon, AUGUST, after)):
        (requests,) = [total for total in client.seal(customer, start, end).totals if total.meter == "requests"]
        assert list(requests.sample_trace_ids) == [trace]


def test_the_same_request_gets_the_first_answer(client: Client) -> None:
    customer = client.put_customer()
    client.ingest(event(customer, time=utc(2026, 7, 1)))
    first = client.seal(customer, JULY, AUGUST, request_id="one")

    assert client.seal(customer, JULY, AUGUST, request_id="one") == first
    with pytest.raises(grpc.RpcError) as caught:
        client.seal(customer, AUGUST, SEPTEMBER, request_id="one")
    assert caught.value.code() is grpc.StatusCode.ALREADY_EXISTS


def test_a_request_id_of_another_seal_seals_nothing(client: Client) -> None:
    first, other = client.put_customer(), client.put_customer()
    client.seal(first, JULY, AUGUST, request_id="two")
    with pytest.raises(grpc.RpcError) as caught:
        client.seal(other, JULY, AUGUST, request_id="two")
    assert caught.value.code() is grpc.StatusCode.ALREADY_EXISTS

    # Nothing is late for the other: no seal is there that nobody was billed for.
    client.ingest(event(other, time=utc(2026, 7, 2)), event(other, time=utc(2026, 8, 2)))
    assert totals(client.seal(other, AUGUST, SEPTEMBER)) == {"requests": 2, "bytes": 0}


def test_a_seal_tells_of_what_is_still_held(client: Client) -> None:
    customer = client.put_customer(keys=["held-key"])
    client.ingest(
        event("held-key", type="unheard.of", time=utc(2026, 7, 9)),
        event(customer, type="unheard.of", time=utc(2026, 7, 9)),
        event(customer, type="unheard.of", time=utc(2026, 8, 9)),
    )

    assert client.seal(customer, JULY, AUGUST).quarantined_events == 2


def test_what_was_before_the_first_period_is_billed_with_it(client: Client) -> None:
    customer = client.put_customer()
    client.ingest(event(customer, time=utc(2026, 6, 20)), event(customer, time=utc(2026, 7, 2)))

    assert totals(client.seal(customer, JULY, AUGUST))["requests"] == 2


def test_a_period_may_end_within_a_quarter_of_an_hour(client: Client) -> None:
    customer = client.put_customer()
    end = utc(2026, 7, 10, 10, 7, 30)
    client.ingest(*[event(customer, time=end + timedelta(seconds=seconds)) for seconds in (-30, -1, 0, 30)])

    assert totals(client.seal(customer, JULY, end))["requests"] == 2
    assert totals(client.seal(customer, end, AUGUST))["requests"] == 2


def test_an_earlier_end_behind_a_later_one_has_nothing_left(client: Client) -> None:
    customer = client.put_customer()
    client.ingest(event(customer, time=utc(2026, 7, 2)), event(customer, time=utc(2026, 8, 2)))
    assert totals(client.seal(customer, JULY, SEPTEMBER))["requests"] == 2

    assert totals(client.seal(customer, JULY, AUGUST)) == {}


@pytest.mark.parametrize(
    ("customer", "start", "end", "code"),
    [
        ("cus_x", JULY, AUGUST, grpc.StatusCode.NOT_FOUND),
        ("", JULY, AUGUST, grpc.StatusCode.INVALID_ARGUMENT),
        ("cus_x", AUGUST, JULY, grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
def test_a_seal_of_nothing(
    client: Client, customer: str, start: datetime, end: datetime, code: grpc.StatusCode
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        client.seal(customer, start, end)
    assert caught.value.code() is code
