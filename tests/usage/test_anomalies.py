"""Usage that is not what it usually is. Expected numbers are worked out by hand beside them."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import grpc
import psycopg
import pytest
from eventually import eventually
from google.type import decimal_pb2
from usage_harness import Alerts, Client, event, timestamp, utc

from meterscope.usage.v1 import meter_service_pb2 as meters_pb
from meterscope.usage.v1 import report_service_pb2 as pb
from meterscope.usage.v1 import report_service_pb2_grpc
from services.usage.domain.anomaly import Kind, Part, confidence, judge, median, moved, windows
from services.usage.domain.calendar import days_earlier
from services.usage.domain.limit import Period

BERLIN = ZoneInfo("Europe/Berlin")
TWO = Decimal(2)
HOUR = timedelta(hours=1)
# Hours of the history end here; events come a minute before each.
BASE = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
FIVE_WEEKS = 5 * 7 * 24


def numbers(*values: int) -> list[Decimal]:
    return [Decimal(value) for value in values]


# --- what is judged, without a service


@pytest.mark.parametrize(
    ("seen", "weekly", "rolling", "kind"),
    [
        (100, [100, 100, 100, 100], [100] * 14, None),
        (200, [100, 100, 100, 100], [100] * 14, None),  # twice is not above twice
        (201, [100, 100, 100, 100], [100] * 14, Kind.SPIKE),
        (50, [100, 100, 100, 100], [100] * 14, None),  # half is not below half
        (49, [100, 100, 100, 100], [100] * 14, Kind.DROP),
        (0, [100, 100, 100, 100], [100] * 14, Kind.DROP),
        # A Sunday among weekdays, and a Monday after a weekend: the weeks know of both.
        (20, [20, 22, 18, 20], [100] * 14, None),
        (100, [100, 100, 100, 100], [20, 20, *[100] * 12], None),
        # Growth: three times as much as weeks ago, but not as in the days before.
        (300, [150, 120, 100, 90], [280] * 14, None),
        # A weekly job that did not run; on all other days there is nothing.
        (0, [500, 500, 500, 500], [0] * 14, Kind.DROP),
        # Gone for more than a week: it was told.
        (0, [0, 100, 100, 100], [0] * 14, None),
        # One wild week does not move the median: 100, 100, 900, 100.
        (250, [100, 100, 900, 100], [100] * 14, Kind.SPIKE),
        # Nothing is expected of what was never there.
        (70, [0, 0, 0, 0], [0] * 14, None),
        # New: one week of history only.
        (900, [100], [100] * 7, None),
        (0, [100], [100] * 7, None),
        # Two weeks are enough.
        (900, [100, 100], [100] * 14, Kind.SPIKE),
    ],
)
def test_a_window_is_judged_by_the_weeks_and_the_windows_before(
    seen: int, weekly: list[int], rolling: list[int], kind: Kind | None
) -> None:
    finding = judge(Decimal(seen), numbers(*weekly), numbers(*rolling), TWO)
    assert (finding.kind if finding else None) == kind


@pytest.mark.parametrize(
    ("weekly", "expected"),
    [
        ([100, 100, 100, 100], "1.00"),
        ([100, 100], "0.50"),  # two of four weeks
        # Median 100; distances 0, 0, 20, 40 have the median 10, a tenth: 1 * 0.9
        ([100, 100, 120, 60], "0.90"),
        # Median 110; distances 20, 0, 40, of which 20: 3 / 4 * (1 - 20 / 110) = 0.6136
        ([90, 110, 150], "0.61"),
        # Median 5; distances 5, 5: a spread of all of it.
        ([0, 10], "0.00"),
        ([0, 0, 0, 0], "0"),
    ],
)
def test_confidence_is_what_the_history_bears(weekly: list[int], expected: str) -> None:
    assert confidence(numbers(*weekly)) == Decimal(expected)


def test_the_median_of_an_even_number_lies_between_the_two_in_the_middle() -> None:
    assert median(numbers(5, 1, 4, 2)) == 3
    assert median(numbers(9, 1, 2)) == 2


def test_the_same_hours_are_those_of_the_clock_when_clocks_change() -> None:
    # Monday 26 October 2026 in Berlin; on the day before clocks went back from UTC+2 to UTC+1.
    laid = windows(utc(2026, 10, 26, 23), timedelta(days=1), BERLIN)
    assert laid.window == Period(utc(2026, 10, 25, 23), utc(2026, 10, 26, 23))
    assert laid.weekly[0] == Period(utc(2026, 10, 18, 22), utc(2026, 10, 19, 22))
    assert laid.weekly[3] == Period(utc(2026, 9, 27, 22), utc(2026, 9, 28, 22))
    # The windows right before are 24 hours each.
    assert laid.rolling[0] == Period(utc(2026, 10, 24, 23), utc(2026, 10, 25, 23))
    assert laid.rolling[13].start == utc(2026, 10, 11, 23)
    assert laid.start == utc(2026, 9, 27, 22)


def test_a_time_that_a_clock_change_skips_counts_with_the_offset_before_it() -> None:
    # 2:30 on 29 March 2026 is skipped in Berlin; with UTC+1 it is 1:30 UTC.
    assert days_earlier(utc(2026, 4, 5, 0, 30), 7, BERLIN) == utc(2026, 3, 29, 1, 30)


def test_the_parts_that_make_a_fifth_of_the_movement_explain_it() -> None:
    seen = {("region", "eu"): Decimal(70), ("region", "us"): Decimal(30), ("path", "/a"): Decimal(19)}
    past = {("region", "eu"): Decimal(10), ("region", "us"): Decimal(25), ("region", "in"): Decimal(10)}
    # All of it moved by 100 - 45 = 55: eu by 60 (109.1 %), us by 5 (9.1 %), in by -10, /a by 19 (34.5 %).
    assert moved(seen, past, Decimal(55)) == [
        Part("region", "eu", Decimal(10), Decimal(70), Decimal("109.1")),
        Part("path", "/a", Decimal(0), Decimal(19), Decimal("34.5")),
    ]
    # Of a fall by 10, what fell.
    assert [part.value for part in moved({}, past, Decimal(-45))] == ["us", "eu", "in"]


# --- with a history


@pytest.fixture(scope="module")
def environment(environment: dict[str, str]) -> dict[str, str]:
    """Anomalies are looked for all the time."""
    return {**environment, "METERSCOPE_USAGE_ANOMALY_SECONDS": "1"}


@pytest.fixture(scope="module")
def reports(channel: grpc.Channel) -> report_service_pb2_grpc.ReportServiceStub:
    return report_service_pb2_grpc.ReportServiceStub(channel)


live = pytest.mark.usefixtures("worker", "meters")


def send(client: Client, events: Sequence[Any]) -> None:
    for start in range(0, len(events), 5_000):
        answer = client.ingest(*events[start : start + 5_000])
        assert answer.accepted == len(events[start : start + 5_000])


def history(
    customer: str,
    amount: Callable[[datetime], int],
    *,
    hours: int = FIVE_WEEKS,
    behind: datetime = BASE,
    **more: Any,
) -> list[Any]:
    """One event an hour, a minute before it is full, with so many bytes; none where that is 0."""
    times = [behind - HOUR * number - timedelta(minutes=1) for number in range(hours)]
    return [
        event(customer, time=time, quantities={"bytes": str(amount(time))}, **more) for time in times if amount(time)
    ]


def judged(
    reports: report_service_pb2_grpc.ReportServiceStub, customer: str, end: datetime = BASE, **more: Any
) -> list[pb.UsageAnomaly]:
    request = pb.ListUsageAnomaliesRequest(customer_id=customer, end_time=timestamp(end), **more)
    return list(reports.ListUsageAnomalies(request, timeout=30).anomalies)


def stored(reports: report_service_pb2_grpc.ReportServiceStub, customer: str) -> list[pb.UsageAnomaly]:
    return list(reports.ListUsageAnomalies(pb.ListUsageAnomaliesRequest(customer_id=customer)).anomalies)


def office(zone: ZoneInfo) -> Callable[[datetime], int]:
    """100 an hour from 8 to 20 o'clock and 10 at night; a fifth of it on Saturday and Sunday."""

    def amount(time: datetime) -> int:
        local = time.astimezone(zone)
        whole = 100 if 8 <= local.hour < 20 else 10
        return whole // 5 if local.weekday() >= 5 else whole

    return amount


@live
def test_nights_and_weekends_are_no_anomalies(
    client: Client, reports: report_service_pb2_grpc.ReportServiceStub
) -> None:
    customer = client.put_customer(time_zone="Europe/Berlin")
    # Six weeks, so that each of the last seven days has four weeks before it.
    send(client, history(customer, office(BERLIN), hours=6 * 7 * 24))
    for day in range(7):
        assert judged(reports, customer, BASE - timedelta(days=day)) == []
    # By a factor just above 1 Berlin's nights still are what they were.
    assert judged(reports, customer, factor=decimal_pb2.Decimal(value="1.6")) == []


@live
def test_a_spike_of_one_part_is_found_explained_and_told_once(
    client: Client,
    reports: report_service_pb2_grpc.ReportServiceStub,
    alerts: Alerts,
    sql: psycopg.Connection[tuple[object, ...]],
) -> None:
    customer = client.put_customer()
    trace_id = "ab" * 16
    us = history(customer, lambda _: 10, attributes={"region": "us"})
    eu = history(customer, lambda _: 10, hours=FIVE_WEEKS - 24, behind=BASE - 24 * HOUR, attributes={"region": "eu"})
    wild = history(customer, lambda _: 50, hours=24, attributes={"region": "eu", "tool": "loop"}, trace_id=trace_id)
    send(client, [*us, *eu, *wild])
    (found,) = judged(reports, customer)
    # 24 hours of 10 + 10 make 480; of 10 + 50 they make 1,440: three times as much. Both medians are 480.
    assert (found.meter, found.kind) == ("bytes", pb.ANOMALY_KIND_SPIKE)
    assert (found.expected.value, found.seen.value, found.ratio.value, found.factor.value) == ("480", "1440", "3", "2")
    assert [value.value for value in found.weekly_values] == ["480"] * 4
    assert (found.rolling_median.value, found.rolling_windows, found.confidence) == ("480", 14, 1.0)
    assert found.start_time.ToDatetime(tzinfo=UTC) == BASE - timedelta(days=1)
    assert found.end_time.ToDatetime(tzinfo=UTC) == BASE
    # It moved by 960: eu from 240 to 1,200, and so did the tool that was not there.
    parts = {(part.name, part.value): part for part in found.attributes}
    assert set(parts) == {("region", "eu"), ("tool", "loop")}
    region = parts["region", "eu"]
    assert (region.expected.value, region.seen.value, region.share_percent) == ("240", "1200", 100.0)
    assert parts["tool", "loop"].share_percent == 125.0
    assert "1440 bytes" in found.explanation
    assert "region=eu (100.0 %)" in found.explanation
    assert 1 <= len(found.trace_ids) == len(set(found.trace_ids))
    # The number of requests is what it was: two an hour.
    assert list(found.other_meters) == []
    # By a factor of 3 it is none; on another meter neither.
    assert judged(reports, customer, factor=decimal_pb2.Decimal(value="3")) == []
    assert judged(reports, customer, meter="requests") == []

    told = eventually(lambda: [request for request in alerts.raised.values() if request.customer_id == customer])
    until_run_again(sql)
    again = [request for request in alerts.raised.values() if request.customer_id == customer]
    assert len(again) == len(told) == 1
    assert (again[0].type, again[0].labels["kind"]) == ("anomaly", "spike")
    assert again[0].data["expected"] == "480"
    (kept,) = stored(reports, customer)
    assert kept.id == again[0].data["anomaly_id"]
    assert (kept.kind, kept.expected.value) == (pb.ANOMALY_KIND_SPIKE, "480")


@live
def test_what_is_judged_on_demand_comes_by_pages_of_one_end(
    client: Client, reports: report_service_pb2_grpc.ReportServiceStub
) -> None:
    customer = client.put_customer()
    usual = history(customer, lambda _: 10)
    # Three times as many requests, and bytes, in the last day.
    more = [each for _ in range(2) for each in history(customer, lambda _: 10, hours=24)]
    send(client, [*usual, *more])
    wanted = {"customer_id": customer, "window_hours": 24}
    pages, token = [], ""
    while not pages or token:
        page = reports.ListUsageAnomalies(
            pb.ListUsageAnomaliesRequest(**wanted, page_size=1, page_token=token), timeout=30
        )
        pages.append([(each.meter, each.end_time.seconds) for each in page.anomalies])
        token = page.next_page_token
    (first,), (second,) = pages
    assert (first[0], second[0]) == ("bytes", "requests")
    assert first[1] == second[1]
    # A token of another question, and one of the stored list, are none.
    for other in ({"window_hours": 12}, {"window_hours": 0}):
        first_page = reports.ListUsageAnomalies(pb.ListUsageAnomaliesRequest(**wanted, page_size=1), timeout=30)
        with pytest.raises(grpc.RpcError) as refused:
            reports.ListUsageAnomalies(
                pb.ListUsageAnomaliesRequest(**(wanted | other), page_token=first_page.next_page_token)
            )
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def until_run_again(sql: psycopg.Connection[tuple[object, ...]]) -> None:
    """Wait until two more searches, begun after this, have ended."""

    def runs() -> int:
        query = "SELECT count(*) FROM outbox WHERE job = 'find_usage_anomalies' AND state = 'DONE'"
        (row,) = sql.execute(query).fetchall()
        return int(str(row[0]))

    before = runs()
    eventually(lambda: runs() >= before + 3)


@live
def test_a_group_that_moved_is_named(client: Client, reports: report_service_pb2_grpc.ReportServiceStub) -> None:
    meter = meters_pb.Meter(
        id="calls-by-country",
        event_type="call",
        aggregation=meters_pb.AGGREGATION_COUNT,
        group_by=["country"],
        filters=[
            meters_pb.MeterFilter(attribute="answered", operator=meters_pb.FILTER_OPERATOR_EQUALS, values=["yes"])
        ],
    )
    client.meters.CreateMeter(meters_pb.CreateMeterRequest(meter=meter))
    customer = client.put_customer()

    def calls(country: str, hours: int, behind: datetime, minute: int, answered: str = "yes") -> list[Any]:
        times = [behind - HOUR * number - timedelta(minutes=minute) for number in range(hours)]
        attributes = {"country": country, "answered": answered}
        return [event(customer, type="call", time=time, attributes=attributes) for time in times]

    send(
        client,
        [
            *calls("in", FIVE_WEEKS, BASE, 1),
            *calls("np", FIVE_WEEKS, BASE, 2),
            *(call for minute in range(3, 7) for call in calls("np", 24, BASE, minute)),
            *(call for minute in range(7, 20) for call in calls("in", 24, BASE, minute, answered="no")),
        ],
    )
    (found,) = judged(reports, customer)
    # An hour two calls, 48 in 24 hours; on the last day four more to Nepal: 144. What was not answered does not count.
    assert (found.expected.value, found.seen.value, found.ratio.value) == ("48", "144", "3")
    assert [(part.name, part.value, part.expected.value, part.seen.value) for part in found.groups] == [
        ("country", "np", "24", "120")
    ]
    assert found.groups[0].share_percent == 100.0
    # Of the attributes, all that moved were answered.
    assert {(part.name, part.value) for part in found.attributes} == {("country", "np"), ("answered", "yes")}


@live
def test_a_fall_to_zero_is_told(
    client: Client, reports: report_service_pb2_grpc.ReportServiceStub, alerts: Alerts
) -> None:
    customer = client.put_customer()
    send(client, history(customer, lambda _: 10, hours=FIVE_WEEKS - 30, behind=BASE - 30 * HOUR))
    by_meter = {found.meter: found for found in judged(reports, customer)}
    assert set(by_meter) == {"bytes", "requests"}
    found = by_meter["bytes"]
    assert (found.kind, found.seen.value, found.expected.value) == (pb.ANOMALY_KIND_DROP, "0", "240")
    assert (found.ratio.value, found.confidence) == ("0", 1.0)
    assert list(found.other_meters) == ["requests"]
    # One a meter.
    signals = eventually(
        lambda: (
            (mine := [each for each in alerts.raised.values() if each.customer_id == customer])
            and len(mine) == 2
            and mine
        )
    )
    assert {str(each.data["meter"]) for each in signals} == {"bytes", "requests"}
    assert {each.labels["kind"] for each in signals} == {"drop"}


@live
def test_a_new_customer_raises_no_alarm(
    client: Client,
    reports: report_service_pb2_grpc.ReportServiceStub,
    alerts: Alerts,
    sql: psycopg.Connection[tuple[object, ...]],
) -> None:
    customer = client.put_customer()
    # Ten days; on the last one a hundred times as much.
    send(client, history(customer, lambda time: 1_000 if time > BASE - 24 * HOUR else 10, hours=240))
    assert judged(reports, customer) == []
    until_run_again(sql)
    assert stored(reports, customer) == []
    assert not [each for each in alerts.raised.values() if each.customer_id == customer]


@live
def test_hours_are_compared_by_the_clock_over_a_clock_change(
    client: Client, reports: report_service_pb2_grpc.ReportServiceStub
) -> None:
    change = last_change()
    customer = client.put_customer(time_zone="Europe/Berlin")
    # Once a day at 9:30 by Berlin's clock, up to the day of the change, not on the day after it.
    at = [change.replace(hour=9, minute=30) - timedelta(days=day) for day in range(34)]
    send(client, [event(customer, time=time.astimezone(UTC), quantities={"bytes": "1000"}) for time in at])
    after = (change + timedelta(days=1)).replace(hour=10)
    found = judged(reports, customer, after.astimezone(UTC), window_hours=2, meter="bytes")
    # Compared with 8 to 10 o'clock by another clock's hour, half of the weeks would show nothing.
    assert [(each.seen.value, each.expected.value) for each in found] == [("0", "1000")]
    assert [value.value for value in found[0].weekly_values] == ["1000"] * 4


def last_change() -> datetime:
    """Midnight of the last day, two or more days ago, on which Berlin's clocks changed."""
    day = (datetime.now(BERLIN) - timedelta(days=2)).replace(hour=0, minute=0, second=0, microsecond=0)
    while day.utcoffset() == (day + timedelta(days=1)).utcoffset():
        day -= timedelta(days=1)
    return day


@live
def test_anomalies_are_listed_newest_first_page_by_page(
    client: Client, reports: report_service_pb2_grpc.ReportServiceStub
) -> None:
    customer = client.put_customer()
    send(client, history(customer, lambda _: 10, hours=FIVE_WEEKS - 48, behind=BASE - 48 * HOUR))
    eventually(lambda: len(stored(reports, customer)) == 2)
    first = reports.ListUsageAnomalies(pb.ListUsageAnomaliesRequest(customer_id=customer, page_size=1))
    rest = reports.ListUsageAnomalies(
        pb.ListUsageAnomaliesRequest(customer_id=customer, page_token=first.next_page_token)
    )
    ids = [found.id for found in (*first.anomalies, *rest.anomalies)]
    assert len(ids) == 2
    assert ids == sorted(ids, reverse=True)
    everyone = reports.ListUsageAnomalies(pb.ListUsageAnomaliesRequest(page_size=1_000)).anomalies
    assert set(ids) <= {found.id for found in everyone}
    only = reports.ListUsageAnomalies(pb.ListUsageAnomaliesRequest(customer_id=customer, meter="bytes")).anomalies
    assert [found.meter for found in only] == ["bytes"]


@live
@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"window_hours": 24}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"customer_id": "cus_nobody", "window_hours": 24}, grpc.StatusCode.NOT_FOUND),
        ({"customer_id": "cus_nobody", "window_hours": 169}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"customer_id": "cus_nobody", "window_hours": -1}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"customer_id": "cus_nobody", "factor": decimal_pb2.Decimal(value="1")}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"customer_id": "cus_nobody", "factor": decimal_pb2.Decimal(value="NaN")}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"customer_id": "cus_nobody", "factor": decimal_pb2.Decimal()}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"customer_id": "c", "end_time": timestamp(utc(2026, 1, 1, 0, 7))}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"customer_id": "c", "end_time": timestamp(utc(9999, 1, 1))}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"customer_id": "x" * 300}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"page_size": -1}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"page_token": "none"}, grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
def test_what_cannot_be_judged_is_refused(
    reports: report_service_pb2_grpc.ReportServiceStub, fields: dict[str, Any], code: grpc.StatusCode
) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        reports.ListUsageAnomalies(pb.ListUsageAnomaliesRequest(**fields))
    assert refused.value.code() == code
