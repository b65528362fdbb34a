"""The rollup takes corrections in at any pace and in any slices, with the same totals at the end."""

import random
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from opentelemetry.metrics import NoOpMeter
from usage_harness import Client, amend, cancel, event, utc

from meterscope.usage.v1 import event_service_pb2 as events_pb
from services.kit.db import Database
from services.kit.outbox import Outbox
from services.usage.counters import Counters
from services.usage.metrics import RedisMetrics, RollupMetrics, RollupState
from services.usage.settings import Settings
from services.usage.usecases.publish import Publisher
from services.usage.usecases.rollup import Rollup
from services.usage.usecases.signals import Signals

pytestmark = pytest.mark.usefixtures("meters")

Sql = psycopg.Connection[tuple[Any, ...]]

JULY = utc(2026, 7, 1)


@pytest.fixture
def database(migrated: Settings) -> Iterator[Database]:
    database = Database(migrated.database_url, schema=migrated.database_schema, service="usage", role="worker")
    yield database
    database.dispose()


def rollup(database: Database, settings: Settings, events_a_turn: int) -> Rollup:
    meter = NoOpMeter("tests")
    counters = Counters(settings.redis_url, RedisMetrics(meter), timeout=timedelta(seconds=2))
    metrics = RollupMetrics(meter, RollupState(), most_customers=10)
    publisher = Publisher(database, counters)
    return Rollup(database, Signals(Outbox(database)), publisher, metrics, events_a_turn=events_a_turn)


def write_at_random(client: Client, customer: str, choose: random.Random) -> dict[str, events_pb.Event]:
    """Ingest, amend and cancel within three quarters of an hour; return what counts."""
    counted: dict[str, events_pb.Event] = {}
    for _ in range(50):
        happened = JULY + timedelta(minutes=choose.randrange(45))
        fresh = event(customer, time=happened, quantities={"bytes": str(choose.randrange(1_000_000))})
        step = choose.choice(("ingest", "ingest", "amend", "cancel")) if counted else "ingest"
        if step != "ingest":
            wrong = counted.pop(choose.choice(sorted(counted)))
            if step == "cancel":
                cancel(client, wrong)
                continue
            amend(client, wrong, fresh)
        else:
            client.ingest(fresh)
        counted[fresh.id] = fresh
    return counted


@pytest.mark.parametrize("events_a_turn", [1, 3, 7, 1000])
def test_any_slices_give_the_same_totals(
    client: Client, database: Database, migrated: Settings, sql: Sql, events_a_turn: int
) -> None:
    turns = rollup(database, migrated, events_a_turn)
    customer = client.put_customer()
    counted = write_at_random(client, customer, random.Random(events_a_turn))

    taken = 1
    # The last turn reaches the horizon, and says up to when all is counted.
    while (turn := turns.turn()) is not None and turn.as_of is None:
        taken += 1

    assert taken > 20 // events_a_turn
    expected: dict[Any, int] = {}
    for each in counted.values():
        happened = each.time.ToDatetime(JULY.tzinfo)
        quarter = happened.replace(minute=happened.minute // 15 * 15)
        expected[quarter] = expected.get(quarter, 0) + int(each.quantities["bytes"].value)
    buckets = """
        SELECT b.start_time, sum(b.sum) FROM bucket_totals AS b JOIN customers AS c ON c.number = b.customer
        JOIN meters AS m ON m.number = b.meter WHERE c.id = %s AND m.id = 'bytes' GROUP BY 1
    """
    assert dict(sql.execute(buckets, [customer]).fetchall()) == expected  # type: ignore[arg-type]
    periods = """
        SELECT sum(t.sum), sum(t.count) FROM period_totals AS t JOIN customers AS c ON c.number = t.customer
        JOIN meters AS m ON m.number = t.meter WHERE c.id = %s AND m.id = 'bytes'
    """
    assert sql.execute(periods, [customer]).fetchall() == [(sum(expected.values()), len(counted))]
