"""The month into which the demo moves its logs."""

from datetime import UTC, datetime, timedelta

import pytest

from meterscope.demo.errors import DemoFailed
from meterscope.demo.month import Month

ZONE = "Asia/Kolkata"


@pytest.mark.parametrize(
    ("now", "month"),
    [
        (datetime(2026, 11, 21, 7, 0, tzinfo=UTC), "2026-10"),
        # 18:29 UTC is still October in India, 18:30 is November there.
        (datetime(2026, 10, 31, 18, 29, tzinfo=UTC), "2026-09"),
        (datetime(2026, 10, 31, 18, 30, tzinfo=UTC), "2026-10"),
        (datetime(2026, 1, 15, tzinfo=UTC), "2025-12"),
    ],
)
def test_the_last_closed_month_is_that_of_the_customers_zone(now: datetime, month: str) -> None:
    assert str(Month.last_closed(now, ZONE)) == month


def test_a_month_is_half_open_between_local_midnights() -> None:
    month = Month.parse("2026-12", ZONE)
    assert month.start == datetime(2026, 11, 30, 18, 30, tzinfo=UTC)
    assert month.end == datetime(2026, 12, 31, 18, 30, tzinfo=UTC)


def test_a_log_keeps_its_days_of_the_month() -> None:
    month = Month.parse("2026-10", ZONE)
    first, last = datetime(2015, 5, 17, 10, 5, tzinfo=UTC), datetime(2015, 5, 20, 21, 5, 59, tzinfo=UTC)
    shift = month.shift(first, last)
    assert first + shift == datetime(2026, 10, 17, 10, 5, tzinfo=UTC)
    assert shift == timedelta(days=4171)


def test_a_log_of_the_end_of_a_long_month_fits_into_february() -> None:
    month = Month.parse("2026-02", ZONE)
    first, last = datetime(2026, 5, 29, 0, 0, tzinfo=UTC), datetime(2026, 5, 31, 0, 0, tzinfo=UTC)
    shift = month.shift(first, last)
    assert shift % timedelta(days=1) == timedelta(0)
    assert month.start <= first + shift < last + shift < month.end


def test_a_log_longer_than_a_month_is_refused() -> None:
    month = Month.parse("2026-02", ZONE)
    with pytest.raises(DemoFailed, match="does not fit into 2026-02"):
        month.shift(datetime(2026, 5, 1, tzinfo=UTC), datetime(2026, 6, 5, tzinfo=UTC))
