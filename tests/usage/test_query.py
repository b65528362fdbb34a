"""Usage in windows of any time zone, with numbers worked by hand."""

from datetime import datetime, timedelta
from typing import Any

import grpc
import pytest
from usage_harness import Client, event, timestamp, utc

from meterscope.usage.v1 import meter_service_pb2 as meters_pb
from meterscope.usage.v1 import usage_service_pb2 as pb

pytestmark = pytest.mark.usefixtures("meters", "worker")


def shown(response: pb.QueryUsageResponse) -> list[tuple[str, str, str]]:
    def text(instant: datetime) -> str:
        return instant.strftime("%d %H:%M")

    return [
        (text(window.start_time.ToDatetime()), text(window.end_time.ToDatetime()), window.value.value)
        for window in response.windows
    ]


@pytest.fixture
def customer(client: Client) -> str:
    """A customer with five events around midnight in India (18:30 UTC) and Nepal (18:15 UTC)."""
    customer = client.put_customer(time_zone="Asia/Kolkata")
    times = [
        utc(2026, 3, 10, 18, 14, 59),
        utc(2026, 3, 10, 18, 15, 0),
        utc(2026, 3, 10, 18, 29, 59),
        utc(2026, 3, 10, 18, 30, 0),
        utc(2026, 3, 11, 18, 29, 59),
    ]
    client.ingest(*[event(customer, time=time, quantities={"bytes": str(10**n)}) for n, time in enumerate(times)])
    return customer


RANGE = (utc(2026, 3, 9), utc(2026, 3, 13))


def test_days_in_india_begin_at_half_past_six_utc(client: Client, customer: str) -> None:
    answer = client.query(customer, "bytes", *RANGE, window=pb.WINDOW_DAY)

    # 1 + 10 + 100 fall on 10 March in Kolkata, 1,000 and 10,000 on the 11th.
    assert shown(answer) == [("09 18:30", "10 18:30", "111"), ("10 18:30", "11 18:30", "11000")]
    assert answer.total.value == "11111"


def test_days_in_nepal_begin_at_a_quarter_past_six_utc(client: Client, customer: str) -> None:
    answer = client.query(customer, "bytes", *RANGE, window=pb.WINDOW_DAY, time_zone="Asia/Kathmandu")

    # 18:14:59 is the 10th, 18:15 to 18:14:59 the 11th; the last one, at 18:29:59, is the 12th there.
    assert shown(answer) == [
        ("09 18:15", "10 18:15", "1"),
        ("10 18:15", "11 18:15", "1110"),
        ("11 18:15", "12 18:15", "10000"),
    ]


def test_hours_in_nepal_begin_at_a_quarter_past(client: Client, customer: str) -> None:
    answer = client.query(customer, "requests", *RANGE, window=pb.WINDOW_HOUR, time_zone="Asia/Kathmandu")

    assert shown(answer) == [
        ("10 17:15", "10 18:15", "1"),
        ("10 18:15", "10 19:15", "3"),
        ("11 18:15", "11 19:15", "1"),
    ]


def test_quarters_of_an_hour_are_utc(client: Client, customer: str) -> None:
    answer = client.query(customer, "requests", *RANGE, window=pb.WINDOW_QUARTER_HOUR)

    assert shown(answer)[:3] == [
        ("10 18:00", "10 18:15", "1"),
        ("10 18:15", "10 18:30", "2"),
        ("10 18:30", "10 18:45", "1"),
    ]


def test_windows_are_cut_by_the_range(client: Client, customer: str) -> None:
    answer = client.query(customer, "requests", utc(2026, 3, 10, 18, 15), utc(2026, 3, 11), window=pb.WINDOW_MONTH)

    assert shown(answer) == [("10 18:15", "11 00:00", "3")]


def test_a_range_may_begin_and_end_anywhere(client: Client, customer: str) -> None:
    # 18:15:00 and 18:29:59 are within, 18:14:59 and 18:30:00 not: both edges cut a quarter of an hour.
    answer = client.query(customer, "bytes", utc(2026, 3, 10, 18, 14, 59, 1), utc(2026, 3, 10, 18, 29, 59, 1))

    assert shown(answer) == [("10 18:14", "10 18:29", "110")]
    assert answer.total.value == "110"


def test_both_edges_may_be_windows_of_their_own(client: Client) -> None:
    customer = client.put_customer()
    client.ingest(*[event(customer, time=utc(2026, 3, 10, 12, minute)) for minute in (0, 7, 8, 22, 23, 37)])

    answer = client.query(
        customer, "requests", utc(2026, 3, 10, 12, 8), utc(2026, 3, 10, 12, 23), window=pb.WINDOW_QUARTER_HOUR
    )

    assert shown(answer) == [("10 12:08", "10 12:15", "1"), ("10 12:15", "10 12:23", "1")]


def test_billing_periods_are_the_customer_s_and_may_begin_within_a_quarter(client: Client) -> None:
    # Two periods that meet at 10:07 on 10 March; before and behind them calendar months of Kolkata, cut by them.
    edge = utc(2026, 3, 10, 10, 7)
    periods = [(utc(2026, 2, 10, 10, 7), edge), (edge, utc(2026, 4, 10, 10, 7))]
    customer = client.put_customer(time_zone="Asia/Kolkata", periods=periods)
    times = [utc(2026, 2, 10, 10, 6), utc(2026, 3, 10, 10, 6), edge, utc(2026, 4, 10, 10, 7)]
    client.ingest(*[event(customer, time=time, quantities={"bytes": str(10**n)}) for n, time in enumerate(times)])

    answer = client.query(
        customer, "bytes", utc(2026, 2, 1), utc(2026, 5, 1), window=pb.WINDOW_BILLING_PERIOD, time_zone="UTC"
    )

    assert shown(answer) == [
        ("01 00:00", "10 10:07", "1"),
        ("10 10:07", "10 10:07", "10"),
        ("10 10:07", "10 10:07", "100"),
        ("10 10:07", "30 18:30", "1000"),
    ]


def test_hours_of_a_zone_whose_clock_moves_by_half_an_hour(client: Client) -> None:
    # Lord Howe, 5 April 2026: at 02:00 (+11, 15:00 UTC on the 4th) it is 01:30 (+10:30) again. The hour from 01:00 ends
    # there; the half hour that is repeated is a window of its own, up to 15:30 UTC.
    customer = client.put_customer(time_zone="Australia/Lord_Howe")
    client.ingest(
        *[event(customer, time=utc(2026, 4, 4, *at)) for at in ((14, 5), (14, 59), (15, 0), (15, 29), (15, 30))]
    )

    answer = client.query(customer, "requests", utc(2026, 4, 4, 13), utc(2026, 4, 4, 18), window=pb.WINDOW_HOUR)

    assert shown(answer) == [
        ("04 14:00", "04 15:00", "2"),
        ("04 15:00", "04 15:30", "2"),
        ("04 15:30", "04 16:30", "1"),
    ]


def test_a_day_with_a_change_of_clocks_has_23_hours(client: Client) -> None:
    # Berlin, 29 March 2026: midnight is 23:00 UTC before and 22:00 UTC after the change.
    customer = client.put_customer(time_zone="Europe/Berlin")
    client.ingest(event(customer, time=utc(2026, 3, 29, 12)))

    answer = client.query(customer, "requests", utc(2026, 3, 28), utc(2026, 3, 31), window=pb.WINDOW_DAY)

    assert shown(answer) == [("28 23:00", "29 22:00", "1")]


def test_one_reads_what_one_has_written(client: Client) -> None:
    customer = client.put_customer()
    for count in range(1, 6):
        client.ingest(event(customer))
        assert client.total(customer, "requests") == count


def test_an_answer_says_up_to_when_it_is_complete(client: Client) -> None:
    customer = client.put_customer()
    asked = utc(2026, 1, 1)
    answer = client.query(customer, "requests", asked, asked + timedelta(days=1))

    assert answer.as_of.ToDatetime() > datetime(2026, 1, 2)  # noqa: DTZ001 - protobuf's form
    assert not answer.windows
    assert answer.total.value == "0"


BAD_QUESTIONS: dict[str, tuple[dict[str, Any], grpc.StatusCode, str]] = {
    "an unknown meter": ({"meter": "nothing"}, grpc.StatusCode.NOT_FOUND, "nothing"),
    "an unknown customer": ({"customer_id": "cus_x"}, grpc.StatusCode.NOT_FOUND, "cus_x"),
    "no customer": ({"customer_id": ""}, grpc.StatusCode.INVALID_ARGUMENT, "customer_id"),
    "a zone that is none": ({"time_zone": "Mars/Olympus"}, grpc.StatusCode.INVALID_ARGUMENT, "time_zone"),
    "the server's own zone": (
        {"time_zone": "localtime"},
        grpc.StatusCode.INVALID_ARGUMENT,
        "time_zone: 'localtime' is",
    ),
    "rules of a machine": ({"time_zone": "posixrules"}, grpc.StatusCode.INVALID_ARGUMENT, "time_zone: 'posixrules' is"),
    "no place's zone": ({"time_zone": "Factory"}, grpc.StatusCode.INVALID_ARGUMENT, "time_zone: 'Factory' is"),
    "a zone outside the folder": ({"time_zone": "../../etc/passwd"}, grpc.StatusCode.INVALID_ARGUMENT, "time_zone"),
    "a window that is none": ({"window": 99}, grpc.StatusCode.INVALID_ARGUMENT, "window"),
    "a group that is not kept": ({"group_by": ["region"]}, grpc.StatusCode.INVALID_ARGUMENT, "group_by"),
    "a group filter that is none": ({"group_filter": ["region"]}, grpc.StatusCode.INVALID_ARGUMENT, "group_filter"),
    "too many windows": (
        {"start_time": timestamp(utc(2024, 1, 1)), "window": pb.WINDOW_QUARTER_HOUR},
        grpc.StatusCode.INVALID_ARGUMENT,
        "windows",
    ),
    "an end before the start": (
        {"end_time": timestamp(utc(2026, 3, 8))},
        grpc.StatusCode.INVALID_ARGUMENT,
        "end_time",
    ),
    "the year 9999": ({"end_time": timestamp(utc(9999, 1, 1))}, grpc.StatusCode.INVALID_ARGUMENT, "end_time"),
}


@pytest.mark.parametrize("case", BAD_QUESTIONS)
def test_a_bad_question_names_the_field(client: Client, customer: str, case: str) -> None:
    changed, code, named = BAD_QUESTIONS[case]
    fields: dict[str, Any] = {
        "customer_id": customer,
        "meter": "requests",
        "start_time": timestamp(RANGE[0]),
        "end_time": timestamp(RANGE[1]),
    }

    with pytest.raises(grpc.RpcError) as caught:
        client.usage.QueryUsage(pb.QueryUsageRequest(**{**fields, **changed}))

    assert caught.value.code() is code
    assert named in str(caught.value.details())


def test_a_meter_counts_from_its_creation_on(client: Client) -> None:
    customer = client.put_customer()
    client.ingest(event(customer))
    client.create_meter("later")
    client.ingest(event(customer))

    assert client.total(customer, "requests") == 2
    assert client.total(customer, "later") == 1


def test_a_meter_is_made_once(client: Client) -> None:
    made = client.create_meter("once", quantity="bytes")
    assert client.create_meter("once", quantity="bytes") == made
    assert client.meters.GetMeter(meters_pb.GetMeterRequest(meter_id="once")) == made

    with pytest.raises(grpc.RpcError) as caught:
        client.create_meter("once", quantity="other")
    assert caught.value.code() is grpc.StatusCode.ALREADY_EXISTS

    listed = client.meters.ListMeters(meters_pb.ListMetersRequest(page_size=1))
    assert (len(listed.meters), bool(listed.next_page_token)) == (1, True)


@pytest.mark.parametrize("meter_id", ["", "Upper", "a" * 64, "a b", "1st"])
def test_a_meter_id_is_a_name(client: Client, meter_id: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        client.create_meter(meter_id)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "meter.id" in str(caught.value.details())
