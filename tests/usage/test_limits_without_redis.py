"""Redis killed, flushed, slow or cut off: limit checks are answered rightly, in time, and it is seen who answered."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import grpc
import pytest
import redis
from eventually import eventually
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, NumberDataPoint
from slow_link import SlowLink
from usage_harness import Client, event

from meterscope.usage.v1 import limit_service_pb2 as pb
from services.kit.channel import open_channel
from services.kit.embedded import EmbeddedValkey
from services.usage.__main__ import build_server
from services.usage.settings import Settings

pytestmark = pytest.mark.usefixtures("metric_reader", "meters", "worker")

LIVE, DATABASE = pb.ANSWERED_FROM_LIVE, pb.ANSWERED_FROM_DATABASE
DEADLINE_SECONDS = 2.0


@pytest.fixture
def checks(metric_reader: InMemoryMetricReader) -> Callable[[str], float]:
    """How many checks were answered from `live` or `database` so far, by the metric."""

    def count(source: str) -> float:
        data = metric_reader.get_metrics_data()
        return sum(
            point.value
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == "billing.limit.checks"
            for point in metric.data.data_points
            if isinstance(point, NumberDataPoint) and (point.attributes or {}).get("answered_from") == source
        )

    return count


@pytest.fixture
def link(redis_url: str) -> Iterator[SlowLink]:
    link = SlowLink(redis_url, longest_pause=0)
    yield link
    link.close()


@pytest.fixture
def far(migrated: Settings, link: SlowLink) -> Iterator[Client]:
    """A client of a server that reaches Redis over the link."""
    server = build_server(replace(migrated, redis_url=link.url))
    port = server.start()
    with open_channel(f"127.0.0.1:{port}", migrated.kit) as channel:
        yield Client.on(channel)
    server.stop()


def check(client: Client, customer: str) -> tuple[pb.CheckLimitResponse, float]:
    """An answer, and the seconds that it took."""
    started = time.monotonic()
    request = pb.CheckLimitRequest(customer_id=customer, meter="requests")
    answer = client.limits.CheckLimit(request, timeout=DEADLINE_SECONDS)
    return answer, time.monotonic() - started


def used(client: Client, *, limit: str = "4", events: int = 3) -> str:
    """A customer who has used something, once the live counters have it."""
    customer = client.put_customer(limits={"requests": limit})
    client.ingest(*[event(customer) for _ in range(events)])
    client.until_used(customer, "requests", str(events), answered_from=LIVE)
    return customer


def test_a_killed_redis(client: Client, valkey: EmbeddedValkey, checks: Callable[[str], float]) -> None:
    customer = used(client)
    before = checks("database")
    valkey.kill()
    try:
        for _ in range(20):
            answer, _ = check(client, customer)
            assert (answer.used.value, answer.allowed, answer.answered_from) == ("3", True, DATABASE)
        assert checks("database") - before == 20
        # What is used and reserved meanwhile is known.
        client.ingest(event(customer))
        client.until_used(customer, "requests", "4", answered_from=DATABASE)
        assert not check(client, customer)[0].allowed
    finally:
        valkey.start()
    before = checks("live")
    client.until_used(customer, "requests", "4", answered_from=LIVE)
    assert checks("live") > before


def test_a_flushed_redis(client: Client, redis_url: str) -> None:
    """FLUSHALL takes the jobs' broker along; the outbox hands them out again."""
    customer = used(client)
    reserving = client.put_customer(limits={"requests": "10"})
    client.reserve(reserving, "requests", "6")
    eventually(lambda: client.check(reserving, "requests").reserved.value == "6")
    with redis.Redis.from_url(redis_url) as store:
        store.flushall()

    # Whoever answers, the answer is right.
    assert check(client, customer)[0].used.value == "3"
    assert check(client, reserving)[0].reserved.value == "6"

    client.until_used(customer, "requests", "3", answered_from=LIVE)
    answer = client.check(reserving, "requests", "5")
    assert (answer.allowed, answer.reserved.value, answer.answered_from) == (False, "6", LIVE)


def test_a_slow_redis(client: Client, far: Client, link: SlowLink) -> None:
    customer = used(client)
    eventually(lambda: check(far, customer)[0].answered_from == LIVE)

    # Longer than a check waits (0.1 s).
    link.pauses = (0.5, 0.6)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: check(far, customer), range(200)))

    assert {(answer.used.value, answer.allowed, answer.answered_from) for answer, _ in answers} == {
        ("3", True, DATABASE)
    }
    assert max(seconds for _, seconds in answers) < DEADLINE_SECONDS

    link.pauses = (0, 0)
    eventually(lambda: check(far, customer)[0].answered_from == LIVE)


def test_many_checks_at_once_without_redis(client: Client, far: Client, link: SlowLink) -> None:
    customers = [used(client, events=number) for number in (1, 2, 3)]
    link.pauses = (0.5, 0.6)
    request = pb.BatchCheckLimitsRequest(
        checks=[
            pb.CheckLimitRequest(customer_id=customer, meter=meter)
            for customer in customers
            for meter in ("requests", "bytes")
        ]
    )

    results = far.limits.BatchCheckLimits(request, timeout=DEADLINE_SECONDS).results

    assert [each.check.used.value for each in results] == ["1", "0", "2", "0", "3", "0"]
    assert {each.check.answered_from for each in results} == {DATABASE}


def test_redis_alone_answers_while_the_database_is_away(client: Client, migrated: Settings) -> None:
    """What a server knows of its customers stays in use; only what it never heard of cannot be answered."""
    customer = used(client)
    link = SlowLink(migrated.database_url, longest_pause=0)
    server = build_server(replace(migrated, database_url=link.url))
    port = server.start()
    with open_channel(f"127.0.0.1:{port}", migrated.kit) as channel:
        far = Client.on(channel)
        assert check(far, customer)[0].used.value == "3"
        link.close()
        answer, _ = check(far, customer)
        assert (answer.used.value, answer.answered_from) == ("3", LIVE)
        with pytest.raises(grpc.RpcError) as caught:
            far.limits.CheckLimit(pb.CheckLimitRequest(customer_id="cus_new", meter="requests"), timeout=20)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    server.stop()
