"""The live counters, on a real Valkey."""

from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from uuid import uuid4

import pytest
import redis
from opentelemetry.metrics import get_meter
from usage_harness import utc

from services.usage.counters import Counter, Counters, CountersAway, Reading
from services.usage.metrics import RedisMetrics

PERIOD, AS_OF = utc(2026, 11, 1), utc(2026, 11, 5)


@pytest.fixture
def counters(redis_url: str) -> Iterator[Counters]:
    counters = Counters(redis_url, RedisMetrics(get_meter("tests")), timeout=timedelta(seconds=2))
    yield counters
    counters.close()


@pytest.fixture
def store(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as store:
        yield store


def write(counters: Counters, customer: str, value: str, *, generation: int = 1, last: int) -> None:
    counter = Counter(customer, "202611", "requests", PERIOD, Decimal(value))
    counters.write([counter], generation=generation, last=last, as_of=AS_OF)


def fill(counters: Counters, customer: str, value: str, *, last: int) -> None:
    mark = counters.begin_filling()
    write(counters, customer, value, last=last)
    counters.end_filling(mark, counters.server_run())


def test_a_rollup_that_wakes_up_late_turns_no_counter_back(counters: Counters) -> None:
    customer = uuid4().hex
    fill(counters, customer, "20", last=1_000)
    write(counters, customer, "9", last=999)
    assert counters.read(customer, "202611", "requests", PERIOD) == Reading(Decimal(20), AS_OF)

    # A restored cluster begins with low ids again, in a higher generation.
    write(counters, customer, "21", generation=2, last=5)
    write(counters, customer, "20", generation=1, last=5_000)
    assert counters.read(customer, "202611", "requests", PERIOD) == Reading(Decimal(21), AS_OF)


def test_two_periods_that_begin_in_one_month_have_a_counter_each(counters: Counters) -> None:
    customer = uuid4().hex
    fill(counters, customer, "20", last=1)
    assert counters.read(customer, "202611", "requests", PERIOD + timedelta(days=9)) == Reading(Decimal(0), AS_OF)


def test_counters_that_are_not_complete_answer_nothing(counters: Counters) -> None:
    customer = uuid4().hex
    fill(counters, customer, "20", last=1)
    counters.begin_filling()
    assert counters.read(customer, "202611", "requests", PERIOD) is None
    write(counters, customer, "21", last=2)
    assert counters.read(customer, "202611", "requests", PERIOD) is None
    fill(counters, customer, "22", last=3)
    assert counters.read(customer, "202611", "requests", PERIOD) == Reading(Decimal(22), AS_OF)
    assert counters.complete_in() == counters.server_run()


def test_counters_that_are_emptied_while_they_are_filled_answer_nothing(counters: Counters, store: redis.Redis) -> None:
    customer = uuid4().hex
    mark = counters.begin_filling()
    write(counters, customer, "20", last=1)
    store.flushdb()
    write(counters, uuid4().hex, "1", last=1)

    with pytest.raises(CountersAway):
        counters.end_filling(mark, counters.server_run())
    assert counters.read(customer, "202611", "requests", PERIOD) is None


def test_redis_that_is_not_there_answers_nothing() -> None:
    counters = Counters("redis://127.0.0.1:1/0", RedisMetrics(get_meter("tests")), timeout=timedelta(milliseconds=50))
    assert counters.read("c", "202611", "requests", PERIOD) is None
