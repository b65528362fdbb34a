"""A reservation against a change of its customer's periods, step by step, at the worst moment.

The change has its transaction's id before the reservation has, so that the rollup may take it in while the reservation
is under way, and commits between two of the reservation's statements. What is asked for a period that is not one any more
is nothing: quota would be granted that is used.
"""

import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, cast
from uuid import uuid4

import grpc
import psycopg
import pytest
from eventually import eventually
from opentelemetry.metrics import NoOpMeter
from sqlalchemy.pool import QueuePool
from usage_harness import Client, event

from meterscope.usage.v1 import limit_service_pb2 as limits_pb
from services.kit.db import Database
from services.usage.errors import LimitReached, RollupBehind
from services.usage.metrics import LimitMetrics
from services.usage.settings import Settings
from services.usage.usecases.background import Background
from services.usage.usecases.catalogue import Catalogue
from services.usage.usecases.notifier import Notifier
from services.usage.usecases.positions import Positions
from services.usage.usecases.reservations import Call, Reservations, Wanted

pytestmark = pytest.mark.usefixtures("meters", "worker")

Sql = psycopg.Connection[tuple[Any, ...]]


@pytest.fixture
def gates(migrated: Settings) -> Iterator[tuple[Sql, Sql]]:
    """Two connections that hold others up by what they lock, until they roll back."""
    options = f"-c search_path={migrated.database_schema}"
    with (
        psycopg.connect(migrated.database_url, options=options) as first,
        psycopg.connect(migrated.database_url, options=options) as second,
    ):
        yield first, second


def held_up_by(sql: Sql, pid: int) -> list[int]:
    """Who waits for a backend's locks."""
    return [
        int(row[0])
        for row in sql.execute("SELECT pid FROM pg_stat_activity WHERE %s = ANY(pg_blocking_pids(pid))", [pid])
    ]


def test_a_change_of_periods_amid_a_reservation_grants_nothing_that_is_used(
    client: Client, sql: Sql, gates: tuple[Sql, Sql]
) -> None:
    of_change, of_reservation = gates
    now = datetime.now(UTC)
    customer = client.put_customer(
        periods=[(now - timedelta(days=1), now + timedelta(days=9))], limits={"requests": "10"}
    )
    client.ingest(*[event(customer) for _ in range(8)])
    client.total(customer, "requests")

    with ThreadPoolExecutor(2) as pool:
        # The change has its id and waits for the customer.
        of_change.execute("SELECT FROM customers WHERE id = %s FOR SHARE", [customer])
        changing = pool.submit(
            client.put_customer,
            customer,
            revision=2,
            periods=[(now - timedelta(days=2), now + timedelta(days=8))],
            limits={"requests": "10"},
        )
        eventually(lambda: held_up_by(sql, of_change.info.backend_pid))
        # The reservation has read the customer and waits for what is reserved.
        of_reservation.execute("LOCK TABLE reservations IN ACCESS EXCLUSIVE MODE")
        reserving = pool.submit(client.reserve, customer, "requests", "3")
        (reservation,) = eventually(lambda: held_up_by(sql, of_reservation.info.backend_pid))

        # The change goes on: to its end and into the totals, or until the reservation is through.
        of_change.rollback()
        eventually(lambda: changing.done() or held_up_by(sql, reservation))
        if changing.done():
            eventually(lambda: is_taken_in(sql, customer))
        of_reservation.rollback()

        # 8 + 3 = 11 is above 10, in the period of before as in that of now.
        with pytest.raises(grpc.RpcError) as refused:
            reserving.result()
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        changing.result()
    client.reserve(customer, "requests", "2")


class StepByStep(Positions):
    """Waits as ever, and does something before and after each time."""

    def __init__(self, database: Database, notifier: Notifier, pool: Database) -> None:
        super().__init__(database, notifier)
        self.pool = pool
        self.before: list[Callable[[], object]] = []
        self.after: list[Callable[[], object]] = []
        self.waited: list[float] = []

    def wait(self, generation: int, beyond: int, seconds: float) -> bool:
        # Who waits holds none of the connections that the others need.
        assert cast("QueuePool", self.pool.engine.pool).checkedout() == 0
        self.waited.append(seconds)
        if self.before:
            self.before.pop(0)()
        reached = super().wait(generation, beyond, seconds)
        if self.after:
            self.after.pop(0)()
        return reached


@pytest.fixture
def pool(migrated: Settings) -> Iterator[Database]:
    """The connections that reservations take."""
    database = Database(migrated.database_url, schema=migrated.database_schema, service="usage")
    yield database
    database.dispose()


@pytest.fixture
def positions(database: Database, pool: Database) -> Iterator[StepByStep]:
    notifier = Notifier(database)
    positions = StepByStep(database, notifier, pool)
    background = Background([notifier, positions])
    background.start()
    yield positions
    background.stop()


@pytest.fixture
def reserve(pool: Database, positions: StepByStep) -> Callable[..., limits_pb.Reservation]:
    """Reserve of `requests`, with patience enough for a machine under load unless it is given."""

    def reserve(customer: str, quantity: str, *, patience: float = 60) -> limits_pb.Reservation:
        hour = timedelta(hours=1)
        metrics = LimitMetrics(NoOpMeter("tests"), most_customers=10)
        catalogue = Catalogue(pool, lambda: datetime.now(UTC))
        reservations = Reservations(
            pool, catalogue, positions, metrics, ttl=hour, longest=hour, patience_seconds=patience
        )
        request = limits_pb.ReserveQuotaRequest(customer_id=customer, request_id=uuid4().hex)
        return reservations.reserve(
            Wanted(customer, "requests", Decimal(quantity), None),
            Call(request, request.request_id, lambda made: limits_pb.Reservation(id=made.id), limits_pb.Reservation),
        )

    return reserve


def test_periods_that_change_again_while_a_reservation_waits_are_waited_for_too(
    client: Client,
    gates: tuple[Sql, Sql],
    positions: StepByStep,
    reserve: Callable[..., limits_pb.Reservation],
) -> None:
    of_rollup, _ = gates
    now = datetime.now(UTC)
    customer = client.put_customer(limits={"requests": "10"})
    client.ingest(*[event(customer) for _ in range(8)])
    client.total(customer, "requests")
    revisions = itertools.count(2)

    def change() -> None:
        """Change the periods, with the rollup held up so that it does not take the change in."""
        of_rollup.execute("SELECT FROM rollups FOR SHARE")
        revision = next(revisions)
        days = timedelta(days=revision)
        periods = [(now - days, now + timedelta(days=20) - days)]
        client.put_customer(customer, revision=revision, periods=periods, limits={"requests": "10"})

    # The first change comes before, the second and the third when the one before was waited for.
    for quantity in ("3", "2"):
        positions.waited.clear()
        positions.before = [of_rollup.rollback] * 3
        positions.after = [change] * 2
        change()
        if quantity == "3":
            # 8 + 3 = 11 is above 10 in each of the periods.
            with pytest.raises(LimitReached):
                reserve(customer, quantity)
        else:
            assert reserve(customer, quantity).id
        # All of them share one patience.
        assert len(positions.waited) == 3
        assert 60 >= positions.waited[0] >= positions.waited[1] >= positions.waited[2] > 0
    with pytest.raises(LimitReached):
        reserve(customer, "1")


def test_patience_that_is_used_up_grants_nothing(
    client: Client, gates: tuple[Sql, Sql], reserve: Callable[..., limits_pb.Reservation]
) -> None:
    of_rollup, _ = gates
    now = datetime.now(UTC)
    customer = client.put_customer(limits={"requests": "10"})
    of_rollup.execute("SELECT FROM rollups FOR SHARE")
    periods = [(now - timedelta(days=1), now + timedelta(days=9))]
    client.put_customer(customer, revision=2, periods=periods, limits={"requests": "10"})

    with pytest.raises(RollupBehind, match=r"within 0\.1 s"):
        reserve(customer, "1", patience=0.1)
    of_rollup.rollback()
    # Nothing was set aside: all 10 are left.
    assert reserve(customer, "10").id


def is_taken_in(sql: Sql, customer: str) -> bool:
    query = """
        SELECT bool_and((k.generation, k.tx) < (p.generation, p.last))
        FROM changes AS k JOIN customers AS c ON c.number = k.customer, rollups AS p WHERE c.id = %s
    """
    return sql.execute(query, [customer]).fetchone() == (True,)
