"""The live counters, on a real Valkey."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import uuid4

import pytest
import redis
from eventually import eventually
from opentelemetry.metrics import get_meter
from slow_link import SlowLink
from usage_harness import utc

from services.usage.counters import Asked, Counter, Counters, CountersAway, Quota, Reading
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


def read(counters: Counters, customer: str, period: datetime = PERIOD) -> Reading | None:
    readings = counters.read([Asked(customer, "202611", "requests", period)])
    return None if readings is None else readings[0]


def used(value: int, reserved: int = 0) -> Reading:
    return Reading(Decimal(value), Decimal(reserved), AS_OF)


def fill(counters: Counters, customer: str, value: str, *, last: int) -> None:
    mark = counters.begin_filling()
    write(counters, customer, value, last=last)
    counters.end_filling(mark, counters.server_run())


def test_a_rollup_that_wakes_up_late_turns_no_counter_back(counters: Counters) -> None:
    customer = uuid4().hex
    fill(counters, customer, "20", last=1_000)
    write(counters, customer, "9", last=999)
    assert read(counters, customer) == used(20)

    # A restored cluster begins with low ids again, in a higher generation.
    write(counters, customer, "21", generation=2, last=5)
    write(counters, customer, "20", generation=1, last=5_000)
    assert read(counters, customer) == used(21)


def test_two_periods_that_begin_in_one_month_have_a_counter_each(counters: Counters) -> None:
    customer = uuid4().hex
    fill(counters, customer, "20", last=1)
    assert read(counters, customer, PERIOD + timedelta(days=9)) == used(0)


def test_counters_that_are_not_complete_answer_nothing(counters: Counters) -> None:
    customer = uuid4().hex
    fill(counters, customer, "20", last=1)
    counters.begin_filling()
    assert read(counters, customer) is None
    write(counters, customer, "21", last=2)
    assert read(counters, customer) is None
    fill(counters, customer, "22", last=3)
    assert read(counters, customer) == used(22)
    assert counters.complete_in() == counters.server_run()


def test_counters_that_are_emptied_while_they_are_filled_answer_nothing(counters: Counters, store: redis.Redis) -> None:
    customer = uuid4().hex
    mark = counters.begin_filling()
    write(counters, customer, "20", last=1)
    store.flushdb()
    write(counters, uuid4().hex, "1", last=1)

    with pytest.raises(CountersAway):
        counters.end_filling(mark, counters.server_run())
    assert read(counters, customer) is None


def test_redis_that_is_not_there_answers_nothing() -> None:
    counters = Counters("redis://127.0.0.1:1/0", RedisMetrics(get_meter("tests")), timeout=timedelta(milliseconds=50))
    assert read(counters, "c") is None


def test_many_counters_are_read_at_once_with_what_is_reserved(counters: Counters) -> None:
    first, second = uuid4().hex, uuid4().hex
    fill(counters, first, "20", last=1)
    counters.write_reserved([Quota(second, "requests", 1, 1, Decimal("2.5"))])

    readings = counters.read([Asked(name, "202611", "requests", PERIOD) for name in (first, second, uuid4().hex)])

    assert readings == [used(20), Reading(Decimal(0), Decimal("2.5"), AS_OF), used(0)]


def test_what_is_reserved_is_not_turned_back(counters: Counters) -> None:
    customer = uuid4().hex
    fill(counters, customer, "20", last=1)
    for generation, version, quantity in ((1, 9, 5), (1, 8, 3), (2, 1, 4), (1, 100, 7)):
        counters.write_reserved([Quota(customer, "requests", generation, version, Decimal(quantity))])

    # Of the generations the higher one, in it the highest version.
    assert read(counters, customer) == used(20, reserved=4)


def test_the_server_tells_of_itself(counters: Counters, store: redis.Redis) -> None:
    store.flushdb()
    fill(counters, uuid4().hex, "20", last=1)
    store.set("another", "1")

    server = counters.server()

    # The counter's hash and the epoch.
    assert server.usage_keys == 2
    assert server.memory > 100_000
    # This one's and the counters' own, at least.
    assert server.connections >= 2


def test_while_redis_is_away_one_call_a_second_asks_it(counters: Counters, redis_url: str) -> None:
    customer = uuid4().hex
    fill(counters, customer, "20", last=1)
    link = SlowLink(redis_url, longest_pause=0.5, shortest_pause=0.5)
    far = Counters(link.url, RedisMetrics(get_meter("tests")), timeout=timedelta(milliseconds=200))
    try:
        assert far.worth_asking()
        assert read(far, customer) is None
        # For a second nobody asks, then one does, and for another second it stays at that.
        assert not far.worth_asking()
        eventually(far.worth_asking)
        assert not far.worth_asking()

        link.pauses = (0, 0)
        eventually(lambda: far.worth_asking() and read(far, customer) == used(20))
        assert all(far.worth_asking() for _ in range(10))
    finally:
        far.close()
        link.close()
