"""What goes on for limits beside the calls: gauges, the sweep, and who does it."""

import threading
from collections.abc import Callable, Iterator
from datetime import timedelta

import grpc
import psycopg
import pytest
from eventually import eventually
from opentelemetry.metrics import get_meter
from usage_harness import Client, event

from meterscope.usage.v1 import limit_service_pb2 as pb
from services.kit.db import Database
from services.kit.worker import Worker
from services.usage.counters import Counters
from services.usage.metrics import LimitState, RedisMetrics, Share
from services.usage.settings import Settings
from services.usage.usecases.defaults import DefaultLimits
from services.usage.usecases.keeper import Keeper
from services.usage.usecases.notifier import Notifier

pytestmark = pytest.mark.usefixtures("meters")


@pytest.fixture(scope="module")
def environment(environment: dict[str, str]) -> dict[str, str]:
    return environment | {"METERSCOPE_USAGE_DEFAULT_LIMITS": "requests=4"}


@pytest.fixture
def state() -> LimitState:
    return LimitState()


@pytest.fixture
def keeper_on(migrated: Settings, database: Database, state: LimitState) -> Iterator[Callable[[str], Keeper]]:
    """Make a keeper that does nothing by itself, on a Redis."""
    opened: list[Counters] = []

    def make(redis_url: str) -> Keeper:
        counters = Counters(redis_url, RedisMetrics(get_meter("tests")), timeout=timedelta(seconds=2))
        opened.append(counters)
        defaults = DefaultLimits(database, Notifier(database), migrated.default_limits)
        return Keeper(database, counters, defaults, state, most_customers=3, kept=timedelta(days=30))

    yield make
    for counters in opened:
        counters.close()


@pytest.fixture
def keeper(keeper_on: Callable[[str], Keeper], migrated: Settings) -> Keeper:
    return keeper_on(migrated.redis_url)


def test_time_gives_a_reservation_back_while_nobody_sweeps(
    client: Client, sql: psycopg.Connection[tuple[object, ...]]
) -> None:
    """The first test here: no worker runs yet."""
    customer = client.put_customer(limits={"requests": "10"})
    made = client.reserve(customer, "requests", "10", seconds=1)

    def reserved() -> str:
        (limit,) = client.limits.ListLimits(pb.ListLimitsRequest(customer_id=customer)).limits
        return limit.reserved.value

    assert reserved() == "10"
    eventually(lambda: reserved() == "0")

    assert sql.execute("SELECT state, counts FROM reservations WHERE id = %s", [made.id]).fetchone() == ("OPEN", True)
    client.reserve(customer, "requests", "10")
    with pytest.raises(grpc.RpcError) as caught:
        client.commit(made, "late")
    assert "expired" in str(caught.value.details())


def test_customers_without_a_plan_come_first_where_not_all_have_a_gauge(
    client: Client, keeper: Keeper, state: LimitState, sql: psycopg.Connection[tuple[object, ...]]
) -> None:
    sql.execute("UPDATE customers SET has_plan = true")
    customers = [client.put_customer(has_plan=number % 2 == 0) for number in range(4)]

    keeper.measure()

    # Of four customers the second and the fourth have no plan; three have a gauge.
    assert len(state.without_plan) == 3
    assert [name for name, is_without in state.without_plan if is_without] == sorted([customers[1], customers[3]])


def test_what_was_read_is_shown_while_the_lease_is_held(
    keeper: Keeper, state: LimitState, sql: psycopg.Connection[tuple[object, ...]]
) -> None:
    stop = threading.Event()
    thread = threading.Thread(target=keeper.run, args=(stop,))
    assert not state.is_held()
    thread.start()
    eventually(state.is_held)
    eventually(lambda: state.server)
    # Taken over by another process: the next renewal, some seconds later, finds that out.
    sql.execute("UPDATE leases SET holder = 'another', expires_at = now() + interval '1 hour' WHERE name = 'limits'")
    eventually(lambda: not state.is_held() and state.server is None)
    stop.set()
    thread.join()
    sql.execute("DELETE FROM leases WHERE name = 'limits'")


def test_redis_is_looked_at_and_nothing_is_reported_when_it_is_away(
    keeper_on: Callable[[str], Keeper], migrated: Settings, state: LimitState
) -> None:
    keeper_on(migrated.redis_url).measure()
    assert state.server is not None
    assert state.server.memory > 100_000
    assert state.server.connections >= 1

    keeper_on("redis://127.0.0.1:1/0").measure()
    assert state.server is None


def test_reservations_that_ended_long_ago_are_removed(
    client: Client, keeper: Keeper, sql: psycopg.Connection[tuple[object, ...]]
) -> None:
    customer = client.put_customer()
    old, lately, held = (client.reserve(customer, "requests", "1") for _ in range(3))
    client.release(old)
    client.release(lately)
    # All that matters is the time of its end, and that it has ended.
    sql.execute("UPDATE reservations SET ended_at = now() - interval '31 days' WHERE id = %s", [old.id])

    keeper.purge()

    left = sql.execute("SELECT id FROM reservations WHERE id = ANY(%s)", [[old.id, lately.id, held.id]]).fetchall()
    assert sorted(left) == sorted([(lately.id,), (held.id,)])


def test_a_sweep_waits_for_redis_and_then_tells_it_all(
    client: Client,
    keeper_on: Callable[[str], Keeper],
    migrated: Settings,
    sql: psycopg.Connection[tuple[object, ...]],
) -> None:
    customer = client.put_customer()
    client.reserve(customer, "requests", "3")
    waiting = (
        "SELECT count(*) FROM quotas AS q JOIN customers AS c ON c.number = q.customer"
        " WHERE c.id = %s AND q.version <> q.published"
    )

    keeper_on("redis://127.0.0.1:1/0").sweep()
    assert sql.execute(waiting, [customer]).fetchone() == (1,)

    keeper_on(migrated.redis_url).sweep()
    assert sql.execute(waiting, [customer]).fetchone() == (0,)


# The last: from here on the module's worker has a keeper of its own, which sweeps too.
def test_shares_are_of_limits_and_of_defaults(
    client: Client,
    worker: Worker,  # noqa: ARG001 - rolls up
    keeper: Keeper,
    state: LimitState,
) -> None:
    planned, without = client.put_customer(limits={"requests": "8"}), client.put_customer(has_plan=False)
    client.ingest(*[event(customer) for customer in (planned, without) for _ in range(3)])
    for customer in (planned, without):
        eventually(lambda customer=customer: client.total(customer, "requests") == 3)

    def measured() -> dict[str, Share]:
        keeper.measure()
        return {share.customer_id: share for share in state.shares}

    # The worker, which has just begun, is the one that puts the default in force.
    found = eventually(lambda: found if without in (found := measured()) else None)
    # 3 of 8 are 37.5 %, 3 of the default of 4 are 75 %.
    assert found[planned] == Share(planned, "requests", 37.5)
    assert found[without] == Share(without, "requests", 75.0)


def test_the_highest_shares_are_shown_where_not_all_can_be(
    client: Client,
    worker: Worker,  # noqa: ARG001 - rolls up
    keeper: Keeper,
    state: LimitState,
) -> None:
    low, *full = [client.put_customer(limits={"requests": limit}) for limit in ("30", "2", "2", "2")]
    client.ingest(*[event(customer) for customer in (low, *full) for _ in range(3)])

    def highest() -> list[tuple[str, float]]:
        keeper.measure()
        return sorted((share.customer_id, share.percent) for share in state.shares)

    # Three have a gauge: those at 3 of 2, and neither the one at 3 of 30 nor those of the test before.
    eventually(lambda: highest() == sorted((customer, 150.0) for customer in full))
