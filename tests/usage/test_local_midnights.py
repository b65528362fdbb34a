"""Days and months begin at the first instant of their date, wherever a zone's clock is moved at midnight.

The instants are worked out by hand from the zones' rules, beside them.
"""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import psycopg
import pytest
from usage_harness import Client, event, utc

from meterscope.usage.v1 import usage_service_pb2 as pb
from services.usage.domain.calendar import days
from services.usage.domain.window import Window, bounds, cuts
from services.usage.store.customers import PERIOD_END, PERIOD_START

SECOND = timedelta(seconds=1)


@pytest.mark.parametrize(
    ("zone", "day", "start", "end"),
    [
        # Put back from 01:00 (-4) to 00:00 (-5) on 1 November 2026: the first midnight is 04:00 UTC, the day has 25 hours.
        ("America/Havana", date(2026, 11, 1), utc(2026, 11, 1, 4), utc(2026, 11, 2, 5)),
        # Put back from 01:00 (+0) to 00:00 (-1) on 25 October 2026.
        ("Atlantic/Azores", date(2026, 10, 25), utc(2026, 10, 25, 0), utc(2026, 10, 26, 1)),
        # Put back from 00:00 (+3) of 25 October to 23:00 (+2) of the 24th: only the second one begins the day.
        ("Asia/Beirut", date(2026, 10, 24), utc(2026, 10, 23, 21), utc(2026, 10, 24, 22)),
        ("Asia/Beirut", date(2026, 10, 25), utc(2026, 10, 24, 22), utc(2026, 10, 25, 22)),
        # Put forward from 00:00 to 01:00: there is no midnight, and the day has 23 hours.
        ("America/Havana", date(2026, 3, 8), utc(2026, 3, 8, 5), utc(2026, 3, 9, 4)),
        ("Africa/Cairo", date(2026, 4, 24), utc(2026, 4, 23, 22), utc(2026, 4, 24, 21)),
        ("Asia/Beirut", date(2026, 3, 29), utc(2026, 3, 28, 22), utc(2026, 3, 29, 21)),
        ("America/Santiago", date(2026, 9, 6), utc(2026, 9, 6, 4), utc(2026, 9, 7, 3)),
        # Put back from 00:01 (-2:30) of 7 November 2010 to 23:01 (-3:30) of the 6th: the 7th had begun, at 02:30 UTC.
        ("America/St_Johns", date(2010, 11, 7), utc(2010, 11, 7, 2, 30), utc(2010, 11, 8, 3, 30)),
        # There was no 30 December 2011 in Samoa: the clock went from -10 to +14.
        ("Pacific/Apia", date(2011, 12, 31), utc(2011, 12, 30, 10), utc(2011, 12, 31, 10)),
    ],
)
def test_a_day_begins_at_the_first_instant_of_its_date(zone: str, day: date, start: datetime, end: datetime) -> None:
    info = ZoneInfo(zone)
    for instant in (start, start + timedelta(minutes=31), start + (end - start) / 2, end - SECOND):
        assert bounds(Window.DAY, instant, info) == (start, end)
    assert bounds(Window.DAY, start - SECOND, info)[1] == start
    (found,) = days(start, end, info)
    assert (found.date, found.start, found.end) == (day, start, end)


@pytest.mark.parametrize("zone", ["America/St_Johns", "Antarctica/Casey", "Pacific/Apia", "America/Havana"])
def test_no_window_ends_before_it_begins(zone: str) -> None:
    # The second beginning is within the hour that St. John's had twice, from 23:01 on 6 November 2010 on.
    for start in (utc(2009, 10, 15, 3, 15), utc(2010, 11, 7, 2, 45)):
        for window in (Window.DAY, Window.MONTH):
            found = cuts(window, start, utc(2012, 1, 15), ZoneInfo(zone), most=1000)
            assert found is not None
            assert sorted(set(found)) == found


ZONES = (
    "America/Havana",
    "Atlantic/Azores",
    "America/Asuncion",
    "America/Santiago",
    "America/Nuuk",
    "Asia/Amman",
    "Asia/Beirut",
    "Africa/Cairo",
    "Asia/Kolkata",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "UTC",
)


def test_the_database_begins_months_where_days_do(sql: psycopg.Connection[tuple[object, ...]]) -> None:
    asked: list[tuple[str, datetime, datetime, datetime]] = []
    for zone in ZONES:
        instant = utc(2012, 1, 15)
        while instant < utc(2038, 1, 1):
            start, end = bounds(Window.MONTH, instant, ZoneInfo(zone))
            near = (start, start + timedelta(minutes=30), start + timedelta(minutes=90), end - SECOND)
            asked += [(zone, each, start, end) for each in near]
            instant = end + timedelta(days=1)
    of = {"customer": "0", "zone": "a.zone", "instant": "a.instant"}
    query = f"""
        SELECT a.zone, a.instant, {PERIOD_START.format(**of)}, {PERIOD_END.format(**of)}
        FROM unnest(%s::text[], %s::timestamptz[]) WITH ORDINALITY AS a (zone, instant, place) ORDER BY a.place
    """  # noqa: S608 - the parts are constants
    found = sql.execute(query, [[each[0] for each in asked], [each[1] for each in asked]]).fetchall()
    assert found == asked
    # Both hours from midnight to 01:00 on 1 November 2026 are of November.
    november = (utc(2026, 11, 1, 4), utc(2026, 12, 1, 5))
    assert {row[2:] for row in found if row[0] == "America/Havana" and row[2] == november[0]} == {november}


@pytest.mark.usefixtures("meters", "worker")
def test_a_month_that_begins_twice_begins_the_first_time(client: Client) -> None:
    """Of a customer in Havana who has no billing periods."""
    customer = client.put_customer(time_zone="America/Havana")
    # 23:30 on 31 October, 00:30 (-4), 00:30 (-5).
    times = [utc(2026, 11, 1, 3, 30), utc(2026, 11, 1, 4, 30), utc(2026, 11, 1, 5, 30)]
    client.ingest(*[event(customer, time=time, quantities={"bytes": str(10**n)}) for n, time in enumerate(times)])

    for window in (pb.WINDOW_BILLING_PERIOD, pb.WINDOW_MONTH):
        answer = client.query(customer, "bytes", utc(2026, 10, 1, 4), utc(2026, 12, 1, 5), window=window)
        shown = [(each.start_time.ToDatetime(UTC), each.value.value) for each in answer.windows]
        assert shown == [(utc(2026, 10, 1, 4), "1"), (utc(2026, 11, 1, 4), "110")]
