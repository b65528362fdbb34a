"""A reservation against a change of its customer's periods, step by step, at the worst moment.

The change has its transaction's id before the reservation has, so that the rollup may take it in while the reservation
is under way, and commits between two of the reservation's statements. What is asked for a period that is not one any more
is nothing: quota would be granted that is used.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import psycopg
import pytest
from eventually import eventually
from usage_harness import Client, event

from services.usage.settings import Settings

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


def is_taken_in(sql: Sql, customer: str) -> bool:
    query = """
        SELECT bool_and((k.generation, k.tx) < (p.generation, p.last))
        FROM changes AS k JOIN customers AS c ON c.number = k.customer, rollups AS p WHERE c.id = %s
    """
    return sql.execute(query, [customer]).fetchone() == (True,)
