"""Signals of thresholds: as many statements for a thousand as for one, each in the trace of what crossed it."""

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import psycopg
import pytest
import sqlalchemy as sa
from usage_harness import Client, event, utc

from services.kit.db import Database
from services.kit.outbox import Outbox
from services.usage.settings import Settings
from services.usage.store import rollup
from services.usage.store.rollup import Turn
from services.usage.usecases.signals import RAISE_SIGNAL, Signals

pytestmark = pytest.mark.usefixtures("meters")

Sql = psycopg.Connection[tuple[Any, ...]]

START, END = utc(2026, 3, 1), utc(2026, 4, 1)


@pytest.fixture
def database(migrated: Settings) -> Iterator[Database]:
    database = Database(migrated.database_url, schema=migrated.database_schema, service="usage", role="worker")
    yield database
    database.dispose()


def crossing(client: Client, *, trace_ids: tuple[str, ...] = ()) -> str:
    """A customer with 10 requests of 10, the first ones with these traces."""
    customer = client.put_customer(periods=[(START, END)], limits={"requests": "10"}, thresholds=[20, 100])
    traces = [*trace_ids, *[""] * (10 - len(trace_ids))]
    client.ingest(*[event(customer, time=START.replace(minute=n), trace_id=each) for n, each in enumerate(traces)])
    return customer


def put(database: Database, sql: Sql, customers: list[str]) -> int:
    """Put the signals of a turn that moved these customers' totals; return how many statements it took."""
    total = """
        INSERT INTO period_totals (customer, meter, period_start, seal, group_key, count, sum, generation, position)
        SELECT c.number, m.number, %s, 0, '00000000-0000-0000-0000-000000000000', 10, 0, 1, '1'
        FROM customers AS c, meters AS m WHERE c.id = ANY(%s) AND m.id = 'requests'
    """
    sql.execute(total, [START, customers])
    statements: list[str] = []

    def count(_conn: Any, _cursor: Any, statement: str, *_more: Any) -> None:
        statements.append(statement)

    with database.transaction() as conn:
        rollup.prepare(conn)
        moved = """
            INSERT INTO moved (customer, meter, period_start, judged, count, sum)
            SELECT customer, meter, period_start, true, 0, 0 FROM period_totals AS t JOIN customers AS c ON c.number = customer
            WHERE c.id = ANY(:customers)
        """
        conn.execute(sa.text(moved), {"customers": customers})
        sa.event.listen(database.engine, "before_cursor_execute", count)
        crossed = Signals(Outbox(database)).put(conn, Turn(1, 0, 2**40, None))
        sa.event.remove(database.engine, "before_cursor_execute", count)
    assert [(each.customer_id, each.threshold) for each in crossed] == [
        (customer, threshold) for customer in sorted(customers) for threshold in (20, 100)
    ]
    return len(statements)


def contexts(sql: Sql, customer: str) -> list[tuple[int, str]]:
    """Threshold and trace id of a customer's signals, in order."""
    query = """
        SELECT CAST(payload #>> '{request,data,threshold}' AS integer), context ->> 'traceparent' FROM outbox
        WHERE job = %s AND payload #>> '{request,customer_id}' = %s ORDER BY 1
    """
    return [
        (int(threshold), str(parent).split("-")[1])
        for threshold, parent in sql.execute(query, [RAISE_SIGNAL, customer])
    ]


def test_many_crossings_take_as_many_statements_as_one(client: Client, database: Database, sql: Sql) -> None:
    one = put(database, sql, [crossing(client)])
    many = put(database, sql, [crossing(client) for _ in range(20)])
    assert many == one


@pytest.mark.usefixtures("tracer_provider")
def test_each_of_many_is_in_the_trace_that_crossed_it(client: Client, database: Database, sql: Sql) -> None:
    traces = [tuple(uuid4().hex for _ in range(10)) for _ in range(3)]
    customers = [crossing(client, trace_ids=of_customer) for of_customer in traces]
    put(database, sql, customers)
    for customer, of_customer in zip(customers, traces, strict=True):
        # 20 % of 10 are reached with the second request, 100 % with the tenth.
        assert contexts(sql, customer) == [(20, of_customer[1]), (100, of_customer[9])]
