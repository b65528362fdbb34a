"""The rollup: each event exactly once, whatever dies, however the events came."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from eventually import eventually
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from usage_harness import Client, event, utc

from meterscope.usage.v1 import usage_service_pb2 as usage_pb
from services.kit.db import Database
from services.usage.settings import Settings
from services.usage.store import holders

pytestmark = pytest.mark.usefixtures("meters", "worker")

Sql = psycopg.Connection[tuple[Any, ...]]


@pytest.mark.parametrize("table", ["bucket_totals", "period_totals", "trace_samples", "thresholds", "outbox"])
def test_a_rollup_whose_connection_dies_on_the_way_counts_once(
    client: Client, migrated: Settings, sql: Sql, table: str
) -> None:
    """The turn is stopped in front of a table that it writes, and its connection cut there."""
    customer = client.put_customer(limits={"requests": "2"})
    client.ingest(event(customer, quantities={"bytes": "1"}))
    assert client.total(customer, "bytes") == 1

    options = f"-c search_path={migrated.database_schema}"
    with psycopg.connect(migrated.database_url, options=options) as blocker:
        blocker.execute(f"LOCK TABLE {table} IN SHARE MODE")
        client.ingest(*[event(customer, quantities={"bytes": "10"}, trace_id=f"{n:032x}") for n in (1, 2)])
        assert eventually(lambda: _terminate_waiting(sql)) == 1
    assert client.total(customer, "bytes") == 21
    assert client.total(customer, "requests") == 3


def _terminate_waiting(sql: Sql) -> int:
    found = sql.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'usage-worker'"
        " AND wait_event_type = 'Lock' AND datname = current_database()"
    )
    return len(found.fetchall())


def test_a_transaction_that_ends_late_is_counted_when_it_ends(client: Client, migrated: Settings) -> None:
    """Events of later transactions wait for it, and the answer says up to when it is complete."""
    customer = client.put_customer()
    client.ingest(event(customer))
    assert client.total(customer, "requests") == 1
    before = datetime.now(UTC)

    with psycopg.connect(migrated.database_url) as writer:
        writer.execute("SELECT pg_current_xact_id()")
        client.ingest(event(customer))
        behind = client.query(customer, "requests", utc(2026, 1, 1), utc(2027, 1, 1))
        assert behind.total.value == "1"
        assert before - timedelta(seconds=1) < behind.as_of.ToDatetime(UTC) < datetime.now(UTC) - timedelta(seconds=1)
    assert client.total(customer, "requests") == 2


def test_periods_may_change_again_before_the_rollup_has_seen_the_first_change(
    client: Client, migrated: Settings
) -> None:
    customer = client.put_customer()
    march, february, may = utc(2026, 3, 1), utc(2026, 2, 10), utc(2026, 5, 1)
    # Nothing is rolled up from here on until both changes are there; the second one stays ahead of the horizon.
    with psycopg.connect(migrated.database_url) as first, psycopg.connect(migrated.database_url) as second:
        first.execute("SELECT pg_current_xact_id()")
        client.put_customer(customer, revision=2, periods=[(march, may)])
        client.ingest(event(customer, time=utc(2026, 3, 5)))
        second.execute("SELECT pg_current_xact_id()")
        client.put_customer(customer, revision=3, periods=[(february, may)])
        first.rollback()

        eventually(lambda: client.total(customer, "requests") == 1)
    client.ingest(event(customer, time=utc(2026, 3, 6)))
    assert client.total(customer, "requests") == 2


def test_a_transaction_of_ours_that_never_ends_is_ended(client: Client, migrated: Settings) -> None:
    customer = client.put_customer()
    with psycopg.connect(migrated.database_url, application_name="usage-server") as stuck:
        stuck.execute("SELECT pg_current_xact_id()")
        client.ingest(event(customer))

        eventually(lambda: client.total(customer, "requests") == 1)
        with pytest.raises(psycopg.OperationalError):
            stuck.execute("SELECT 1")


def test_a_worker_that_works_is_spared_and_one_that_sleeps_in_its_transaction_is_ended(migrated: Settings) -> None:
    """A long turn of another process that is in the middle of a statement comes through."""
    database = Database(migrated.database_url, schema=migrated.database_schema, service="usage")
    second = timedelta(seconds=1)
    with ThreadPoolExecutor(1) as pool, psycopg.connect(migrated.database_url, application_name="usage-worker") as turn:
        turn.execute("SELECT pg_current_xact_id()")
        working = pool.submit(turn.execute, "SELECT pg_sleep(3)")
        with database.autocommit() as conn:
            eventually(lambda: [each for each in holders.holders(conn, second) if each.application == "usage-worker"])
            holders.terminate(conn, second)
            assert not working.done()
            working.result(20)
            eventually(lambda: "usage-worker" in holders.terminate(conn, second))
        with pytest.raises(psycopg.OperationalError):
            turn.execute("SELECT 1")
    database.dispose()


def test_after_a_restore_the_next_generation_goes_on(client: Client, sql: Sql) -> None:
    """A logical restore keeps rows and begins transaction ids anew, in a cluster of another identifier."""
    customer = client.put_customer()
    client.ingest(*[event(customer) for _ in range(3)])
    assert client.total(customer, "requests") == 3
    sql.execute("UPDATE generations SET system_identifier = system_identifier + 1")

    def writes_again() -> bool:
        try:
            return client.outcomes(event(customer, id="again")) in (["ACCEPTED"], ["DUPLICATE"])
        except Exception as error:  # noqa: BLE001 - refused until the generation is raised
            assert "restored" in str(error)  # noqa: PT017
            return False

    eventually(writes_again)
    assert client.total(customer, "requests") == 4
    assert sql.execute("SELECT generation FROM rollups").fetchall() == [
        sql.execute("SELECT max(number) FROM generations").fetchone()
    ]


START = utc(2026, 10, 1)


@st.composite
def streams(draw: st.DrawFn) -> tuple[list[tuple[int, int]], list[list[int]]]:
    """Events as (seconds from the start, bytes), and batches of their numbers: each at least once, in any order."""
    events = draw(st.lists(st.tuples(st.integers(0, 5 * 86_400), st.integers(0, 10**9)), min_size=1, max_size=30))
    order = draw(st.permutations(range(len(events))))
    again = draw(st.lists(st.integers(0, len(events) - 1), max_size=15))
    numbers = [*order, *again]
    cuts = sorted(draw(st.sets(st.integers(1, len(numbers)), max_size=5)) | {len(numbers)})
    return events, [numbers[start:end] for start, end in zip([0, *cuts], cuts, strict=False)]


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(streams())
def test_any_split_order_and_duplication_gives_the_same_totals(
    client: Client, stream: tuple[list[tuple[int, int]], list[list[int]]]
) -> None:
    events, batches = stream
    customer = client.put_customer()
    sent = [
        event(customer, id=f"p{n}", time=START + timedelta(seconds=seconds), quantities={"bytes": str(size)})
        for n, (seconds, size) in enumerate(events)
    ]

    accepted = sum(client.ingest(*[sent[n] for n in batch]).accepted for batch in batches)

    assert accepted == len(events)
    days = client.query(customer, "bytes", START, START + timedelta(days=6), window=usage_pb.WINDOW_DAY)
    by_day: dict[int, int] = {}
    for seconds, size in events:
        by_day[seconds // 86_400] = by_day.get(seconds // 86_400, 0) + size
    assert {window.start_time.ToDatetime(UTC): Decimal(window.value.value) for window in days.windows} == {
        START + timedelta(days=day): size for day, size in by_day.items()
    }
    assert client.total(customer, "requests", START, START + timedelta(days=6)) == len(events)


def test_a_recount_of_the_raw_events_gives_the_totals(client: Client, sql: Sql) -> None:
    customer = client.put_customer()
    request = [event(customer, time=START + timedelta(minutes=7 * n), quantities={"bytes": str(n)}) for n in range(50)]
    client.ingest(*request)
    client.total(customer, "bytes")

    recount = """
        SELECT date_bin('15 minutes', time, 'epoch'), count(*), sum((quantities -> 'bytes')::numeric)
        FROM events JOIN customers ON number = customer WHERE customers.id = %s GROUP BY 1 ORDER BY 1
    """
    totals = """
        SELECT b.start_time, b.count, b.sum FROM bucket_totals AS b JOIN customers AS c ON c.number = b.customer
        JOIN meters AS m ON m.number = b.meter WHERE c.id = %s AND m.id = 'bytes' ORDER BY 1
    """
    assert sql.execute(totals, [customer]).fetchall() == sql.execute(recount, [customer]).fetchall()
