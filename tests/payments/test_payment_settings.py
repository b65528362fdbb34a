from datetime import timedelta

import pytest

from services.kit.settings import SettingsError, read
from services.payments.settings import Settings

NEEDED = {"DATABASE_URL": "postgresql://u:secret@127.0.0.1/db", "REDIS_URL": "redis://127.0.0.1"}


def test_delays_are_read_in_their_order() -> None:
    schedule = read(Settings, {**NEEDED, "METERSCOPE_PAYMENT_RETRY_DELAYS": "2, 60.5"}).schedule

    assert schedule.delay("insufficient_funds", ["insufficient_funds"]) == timedelta(seconds=2)
    assert schedule.delay("insufficient_funds", ["insufficient_funds"] * 2) == timedelta(seconds=60.5)
    assert schedule.delay("insufficient_funds", ["insufficient_funds"] * 3) is None


def test_by_default_a_payment_is_tried_again_after_one_three_and_seven_days() -> None:
    schedule = read(Settings, NEEDED).schedule

    delays = [schedule.delay("insufficient_funds", ["insufficient_funds"] * n) for n in (1, 2, 3, 4)]
    assert delays == [timedelta(days=1), timedelta(days=3), timedelta(days=7), None]


@pytest.mark.parametrize("delays", ["soon", "60,-1", "nan", "1e400"])
@pytest.mark.parametrize("variable", ["METERSCOPE_PAYMENT_RETRY_DELAYS", "METERSCOPE_PAYMENT_PROVIDER_DOWN_DELAYS"])
def test_delays_that_are_none_are_refused_by_name(variable: str, delays: str) -> None:
    with pytest.raises(SettingsError, match=variable):
        read(Settings, {**NEEDED, variable: delays})


def test_what_is_missing_is_named() -> None:
    with pytest.raises(SettingsError) as refused:
        read(Settings, {})
    assert [problem.split()[0] for problem in refused.value.problems] == ["PAYMENTS_DATABASE_URL", "REDIS_URL"]


def test_secrets_are_not_shown() -> None:
    assert "secret" not in repr(read(Settings, NEEDED))
