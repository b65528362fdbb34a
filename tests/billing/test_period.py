"""Billing periods: month ends, leap days, clock changes, odd offsets."""

import itertools
from datetime import timedelta

import pytest
from billing_harness import utc
from hypothesis import given
from hypothesis import strategies as st

from services.billing.domain.period import Period, Schedule


def starts(anchor: str, zone: str, count: int) -> list[str]:
    schedule = Schedule(utc(anchor), zone)
    return [schedule.start_of(number).strftime("%Y-%m-%dT%H:%M") for number in range(count)]


def test_the_last_day_stands_in_for_a_missing_one_and_the_anchor_day_comes_back() -> None:
    assert starts("2026-01-31T09:00", "UTC", 5) == [
        "2026-01-31T09:00",
        "2026-02-28T09:00",
        "2026-03-31T09:00",
        "2026-04-30T09:00",
        "2026-05-31T09:00",
    ]


def test_january_31_is_followed_by_the_leap_day_where_there_is_one() -> None:
    assert starts("2028-01-31T00:00", "UTC", 3) == ["2028-01-31T00:00", "2028-02-29T00:00", "2028-03-31T00:00"]


def test_a_leap_day_anchor_comes_back_in_the_next_leap_year() -> None:
    schedule = Schedule(utc("2028-02-29T00:00"), "UTC")
    assert schedule.start_of(12) == utc("2029-02-28T00:00")
    assert schedule.start_of(48) == utc("2032-02-29T00:00")


def test_local_midnight_is_kept_over_the_change_to_summer_time() -> None:
    # Berlin: 00:00 is 23:00 UTC of the day before in winter, 22:00 in summer (from 29 March 2026).
    assert starts("2026-02-28T23:00", "Europe/Berlin", 3) == [
        "2026-02-28T23:00",
        "2026-03-31T22:00",
        "2026-04-30T22:00",
    ]


def test_a_skipped_local_time_counts_with_the_offset_before_the_change() -> None:
    # Berlin, 02:30: on 29 March 2026 the clock goes from 02:00 to 03:00; 02:30+01:00 is 01:30 UTC, shown as 03:30.
    assert starts("2026-01-29T01:30", "Europe/Berlin", 4) == [
        "2026-01-29T01:30",
        "2026-02-28T01:30",
        "2026-03-29T01:30",
        "2026-04-29T00:30",
    ]


def test_a_local_time_that_occurs_twice_means_the_first() -> None:
    # Berlin, 02:30: on 25 October 2026 it occurs at 00:30 and at 01:30 UTC.
    assert starts("2026-09-25T00:30", "Europe/Berlin", 3) == [
        "2026-09-25T00:30",
        "2026-10-25T00:30",
        "2026-11-25T01:30",
    ]


def test_new_york_changes_on_the_first_of_november() -> None:
    # 01:30 occurs at 05:30 and at 06:30 UTC on 1 November 2026.
    assert starts("2026-10-01T05:30", "America/New_York", 3) == [
        "2026-10-01T05:30",
        "2026-11-01T05:30",
        "2026-12-01T06:30",
    ]


def test_a_start_within_the_repeated_hour_is_kept_to_the_instant() -> None:
    assert starts("2026-11-01T06:30", "America/New_York", 2) == ["2026-11-01T06:30", "2026-12-01T06:30"]


def test_new_york_skips_an_hour_in_march() -> None:
    # 02:15 does not occur on 8 March 2026; 02:15-05:00 is 07:15 UTC.
    assert starts("2026-02-08T07:15", "America/New_York", 3) == [
        "2026-02-08T07:15",
        "2026-03-08T07:15",
        "2026-04-08T06:15",
    ]


def test_kathmandu_is_five_hours_and_three_quarters_ahead() -> None:
    assert starts("2026-04-30T18:15", "Asia/Kathmandu", 3) == [
        "2026-04-30T18:15",
        "2026-05-31T18:15",
        "2026-06-30T18:15",
    ]


def test_a_period_that_ends_at_the_instant_has_ended() -> None:
    schedule = Schedule(utc("2026-05-01T00:00"), "UTC")
    may = Period(utc("2026-05-01T00:00"), utc("2026-06-01T00:00"))
    assert list(schedule.ended(0, utc("2026-06-01T00:00"))) == [(0, may)]
    assert list(schedule.ended(0, utc("2026-06-01T00:00") - timedelta(microseconds=1))) == []


def test_the_periods_around_an_instant_reach_from_the_first_to_two_ahead() -> None:
    periods = Schedule(utc("2026-04-01T00:00"), "UTC").around(utc("2026-05-15T00:00"), 2)
    assert [period.start.month for period in periods] == [4, 5, 6, 7]
    assert periods[-1].end == utc("2026-08-01T00:00")


@pytest.mark.parametrize(
    "zone", ["Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe", "Africa/Casablanca"]
)
@given(minutes=st.integers(0, 10 * 366 * 24 * 60))
def test_periods_follow_each_other_without_gap_and_grow(zone: str, minutes: int) -> None:
    schedule = Schedule(utc("2020-01-01T00:00") + timedelta(minutes=minutes), zone)
    periods = [schedule.period(number) for number in range(14)]
    for period, following in itertools.pairwise(periods):
        assert period.end == following.start
    for period in periods:
        assert timedelta(days=27, hours=22) <= period.end - period.start <= timedelta(days=31, hours=2)
