"""The rollup takes in at a time what its transactions have time for."""

import time
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from opentelemetry.metrics import NoOpMeter
from usage_harness import Client, event

from services.kit.db import Database
from services.kit.outbox import Outbox
from services.usage.metrics import RollupMetrics, RollupState
from services.usage.settings import Settings
from services.usage.usecases import rollup
from services.usage.usecases.rollup import Rollup
from services.usage.usecases.signals import Signals

pytestmark = pytest.mark.usefixtures("meters")


class Unpublished:
    """Live counters are no part of this."""

    def publish(self, *_: Any) -> None:
        """Do nothing."""

    def forget(self) -> None:
        """Do nothing."""


def test_long_turns_are_followed_by_smaller_and_short_ones_of_a_backlog_by_larger(
    client: Client, migrated: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    customer = client.put_customer()
    database = Database(migrated.database_url, schema=migrated.database_schema, service="usage", role="worker")
    metrics = RollupMetrics(NoOpMeter("tests"), RollupState(), most_customers=10)
    turns = Rollup(database, Signals(Outbox(database)), Unpublished(), metrics, events_a_turn=16_000)  # type: ignore[arg-type]
    turns.turn()
    sizes: list[int] = []
    # The clock goes on by `seconds` each time it is asked, at a turn's beginning and end.
    clock = SimpleNamespace(now=0.0, seconds=0.0)
    begin = rollup.rollup.begin

    def perf_counter() -> float:
        clock.now += clock.seconds
        return float(clock.now)

    def noted(conn: sa.Connection, most: int, density: int) -> Any:
        sizes.append(most)
        return begin(conn, most, density)

    monkeypatch.setattr(rollup, "time", SimpleNamespace(**{**vars(time), "perf_counter": perf_counter}))
    monkeypatch.setattr(rollup.rollup, "begin", noted)
    for clock.seconds in (3.0, 3.0, 3.0, 3.0, 3.0, 2.0):
        # As dense as what comes behind it: by that the rollup knows how much may wait.
        client.ingest(*(event(customer) for _ in range(1_000)))
        assert turns.turn() is not None
    # Halved, but never below a thousand; what takes neither long nor little stays.
    assert sizes == [16_000, 8_000, 4_000, 2_000, 1_000, 1_000]
    clock.seconds = 0.1
    for _ in range(4):
        client.ingest(*(event(customer) for _ in range(1_000)))
    while (turn := turns.turn()) is not None and turn.as_of is None:
        pass
    # Each turn that leaves a rest behind makes the next one larger.
    assert sizes[6:8] == [1_000, 2_000]
    # Without a backlog there is no reason to.
    size = sizes[-1]
    client.ingest(event(customer))
    assert turns.turn() is not None
    assert sizes[-1] == size
    database.dispose()
