"""The live counters follow the totals, whatever came between a turn of the rollup and its being published."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from opentelemetry.metrics import get_meter
from usage_harness import Client, event

from meterscope.usage.v1 import limit_service_pb2 as pb
from services.kit.db import Database
from services.kit.outbox import Outbox
from services.usage.counters import Counters
from services.usage.metrics import RedisMetrics, RollupMetrics, RollupState
from services.usage.settings import Settings
from services.usage.usecases.publish import Publisher
from services.usage.usecases.rollup import Rollup
from services.usage.usecases.signals import Signals

pytestmark = pytest.mark.usefixtures("meters")


class Torn(Exception):
    """The process is stopped here."""


class Tearing(RollupMetrics):
    """Instruments at which a turn can be torn off: behind its commit, before its counters are written."""

    torn = False

    def turned(self, seconds: float, event_age: float | None) -> None:
        if self.torn:
            raise Torn
        super().turned(seconds, event_age)


@pytest.fixture
def counters(migrated: Settings) -> Iterator[Counters]:
    counters = Counters(migrated.redis_url, RedisMetrics(get_meter("tests")), timeout=timedelta(seconds=2))
    yield counters
    counters.close()


def test_what_a_torn_turn_moved_is_published_with_the_next(
    client: Client, database: Database, counters: Counters
) -> None:
    metrics = Tearing(get_meter("tests"), RollupState(), most_customers=10)
    turns = Rollup(database, Signals(Outbox(database)), Publisher(database, counters), metrics)
    customer = client.put_customer()
    client.ingest(event(customer))
    turns.turn()
    assert _used(client, customer) == "1"

    client.ingest(event(customer))
    metrics.torn = True
    with pytest.raises(Torn):
        turns.turn()
    metrics.torn = False
    client.ingest(event(client.put_customer()))
    turns.turn()

    assert _used(client, customer) == "2"


def _used(client: Client, customer: str) -> str:
    answer = client.check(customer, "requests")
    assert answer.answered_from == pb.ANSWERED_FROM_LIVE
    return answer.used.value
