"""The database: sessions, transactions, lost connections, what is measured."""

import socket
from collections.abc import Iterator
from datetime import timedelta

import psycopg
import pytest
import sqlalchemy as sa
from opentelemetry import trace
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from services.kit.db import Database, after_commit, is_unavailable
from tests.kit.measured import points


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    made = Database(database_url, schema="kit", service="usage", role="worker", pool_size=3)
    with made.transaction() as conn:
        conn.execute(sa.text("CREATE SCHEMA IF NOT EXISTS kit"))
        conn.execute(sa.text("DROP TABLE IF EXISTS kit.notes"))
        conn.execute(sa.text("CREATE TABLE kit.notes (text text PRIMARY KEY)"))
    yield made
    made.dispose()


def notes(database: Database) -> list[str]:
    with database.transaction() as conn:
        return list(conn.execute(sa.text("SELECT text FROM notes ORDER BY text")).scalars())


def cut_all_connections(database: Database) -> None:
    with database.dedicated() as conn:
        conn.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


def test_a_transaction_commits_at_the_end_and_rolls_back_on_an_error(database: Database) -> None:
    with database.transaction() as conn:
        conn.execute(sa.text("INSERT INTO notes VALUES ('kept')"))
    with pytest.raises(ZeroDivisionError), database.transaction() as conn:
        conn.execute(sa.text("INSERT INTO notes VALUES ('gone')"))
        raise ZeroDivisionError
    assert notes(database) == ["kept"]


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("transaction_isolation", "read committed"),
        ("transaction_timeout", "5s"),
        ("idle_in_transaction_session_timeout", "5s"),
        ("tcp_keepalives_idle", "5"),
        ("search_path", '"kit"'),
        ("application_name", "usage-worker"),
        ("TimeZone", "UTC"),
    ],
)
def test_a_session_says_what_it_is_and_bounds_itself(database: Database, setting: str, value: str) -> None:
    show = sa.text("SELECT current_setting(:setting)")
    with database.transaction() as conn:
        assert conn.execute(show, {"setting": setting}).scalar_one() == value
    with database.raw() as raw:
        assert raw.execute("SELECT current_setting(%s)", [setting]).fetchone() == (value,)


def test_rows_are_copied_through_the_driver_in_one_transaction(database: Database) -> None:
    with database.raw() as conn, conn.cursor().copy("COPY notes FROM STDIN") as copy:
        for text in ("a", "b"):
            copy.write_row([text])
    with pytest.raises(ZeroDivisionError), database.raw() as conn:
        conn.execute("INSERT INTO notes VALUES ('gone')")
        raise ZeroDivisionError
    assert notes(database) == ["a", "b"]


def test_each_statement_commits_by_itself_in_autocommit(database: Database) -> None:
    with pytest.raises(ZeroDivisionError), database.autocommit() as conn:
        conn.execute(sa.text("INSERT INTO notes VALUES ('kept')"))
        raise ZeroDivisionError
    assert notes(database) == ["kept"]


def test_what_waits_for_the_commit_runs_once_a_key_and_never_after_a_rollback(database: Database) -> None:
    ran: list[str] = []
    with database.transaction() as conn:
        for _ in range(2):
            after_commit(conn, "a", lambda: ran.append(f"a {notes(database)}"))
        after_commit(conn, "b", lambda: ran.append("b"))
        conn.execute(sa.text("INSERT INTO notes VALUES ('note')"))
        assert ran == []
    with pytest.raises(ZeroDivisionError), database.transaction() as conn:
        after_commit(conn, "c", lambda: ran.append("c"))
        raise ZeroDivisionError
    with database.transaction():
        pass
    assert ran == ["a ['note']", "b"]


def test_a_transaction_that_takes_too_long_is_ended_as_unavailable(database_url: str) -> None:
    database = Database(database_url, schema="kit", service="usage", transaction_timeout=timedelta(milliseconds=100))
    with pytest.raises(sa.exc.DBAPIError) as caught, database.transaction() as conn:
        conn.execute(sa.text("SELECT pg_sleep(20)"))
    assert is_unavailable(caught.value)
    assert database.answers()
    database.dispose()


def test_a_pool_without_a_free_connection_is_unavailable(database_url: str) -> None:
    database = Database(
        database_url, schema="kit", service="usage", pool_size=1, pool_timeout=timedelta(milliseconds=10)
    )
    with database.transaction():
        for checkout in (database.transaction, database.autocommit, database.raw):
            with pytest.raises(sa.exc.TimeoutError) as caught, checkout():
                pass
            assert is_unavailable(caught.value)
    database.dispose()


def test_a_database_that_is_not_there_is_unavailable() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        database = Database(f"postgresql://usage@127.0.0.1:{port}/usage", schema="kit", service="usage")
        with pytest.raises(sa.exc.OperationalError) as caught, database.transaction():
            pass
        with pytest.raises(psycopg.OperationalError) as caught_raw, database.raw():
            pass
    assert is_unavailable(caught.value)
    assert is_unavailable(caught_raw.value)
    assert not database.answers()
    database.dispose()


def test_a_connection_lost_in_a_transaction_is_unavailable_and_the_next_one_is_new(database: Database) -> None:
    with pytest.raises(sa.exc.OperationalError) as caught, database.transaction() as conn:
        conn.execute(sa.text("INSERT INTO notes VALUES ('lost')"))
        cut_all_connections(database)
        conn.execute(sa.text("SELECT 1"))
    assert is_unavailable(caught.value)
    assert notes(database) == []


def test_a_connection_lost_at_the_commit_is_unavailable(database: Database) -> None:
    with pytest.raises(sa.exc.OperationalError) as caught, database.transaction() as conn:
        conn.execute(sa.text("INSERT INTO notes VALUES ('lost')"))
        cut_all_connections(database)
    assert is_unavailable(caught.value)
    assert notes(database) == []


def test_one_lost_connection_of_the_driver_renews_the_whole_pool(database: Database) -> None:
    with database.raw(), database.raw(), database.raw():
        pass
    with pytest.raises(psycopg.OperationalError) as caught, database.raw() as conn:
        cut_all_connections(database)
        conn.execute("SELECT 1")
    assert is_unavailable(caught.value)
    with database.raw(), database.raw(), database.raw() as conn:
        assert conn.execute("SELECT 1").fetchone() == (1,)


def test_a_connection_in_use_while_the_pool_is_renewed_is_closed_when_it_comes_back(database: Database) -> None:
    with database.raw() as healthy:
        with pytest.raises(psycopg.OperationalError), database.raw() as lost:
            lost.execute("SELECT pg_terminate_backend(pg_backend_pid())")
        assert healthy.execute("SELECT 1").fetchone() == (1,)
    assert healthy.closed


def test_an_error_says_no_values(database: Database) -> None:
    with pytest.raises(sa.exc.ProgrammingError) as caught, database.transaction() as conn:
        conn.execute(sa.text("INSERT INTO no_such_table VALUES (:token)"), {"token": "tok_of_a_card"})
    assert "tok_of_a_card" not in str(caught.value)


def test_a_wrong_statement_is_not_unavailable(database: Database) -> None:
    with database.transaction() as conn:
        conn.execute(sa.text("INSERT INTO notes VALUES ('once')"))
    with pytest.raises(sa.exc.IntegrityError) as caught, database.transaction() as conn:
        conn.execute(sa.text("INSERT INTO notes VALUES ('once')"))
    assert not is_unavailable(caught.value)
    assert not is_unavailable(ValueError())


def test_statements_are_spans_only_within_a_trace(database: Database, spans: InMemorySpanExporter) -> None:
    notes(database)
    assert spans.get_finished_spans() == ()
    with trace.get_tracer("test").start_as_current_span("call"):
        notes(database)
        with pytest.raises(sa.exc.ProgrammingError), database.transaction() as conn:
            conn.execute(sa.text("SELECT * FROM no_such_table"))
    good, bad, call = spans.get_finished_spans()
    for span in (good, bad):
        assert span.parent is not None
        assert span.parent.span_id == call.context.span_id
        assert (span.name, span.kind) == ("SELECT", SpanKind.CLIENT)
    assert dict(good.attributes or {}) == {
        "db.system.name": "postgresql",
        "db.namespace": f"{database.url.database}|kit",
        "db.operation.name": "SELECT",
        "db.query.text": "SELECT text FROM notes ORDER BY text",
    }
    assert (good.status.is_ok, bad.status.is_ok) == (True, False)


def test_statements_and_the_pool_are_measured(database_url: str, metric_reader: InMemoryMetricReader) -> None:
    database = Database(database_url, schema="measured", service="measured", pool_size=4)
    with pytest.raises(sa.exc.ProgrammingError), database.transaction() as conn:
        conn.execute(sa.text("SELECT 1"))
        conn.execute(sa.text("SELECT * FROM no_such_table"))
    with database.transaction(), database.transaction():
        measured = metric_reader.get_metrics_data()
    durations = points(measured, "db.client.operation.duration", {"db.namespace": f"{database.url.database}|measured"})
    # 42P01 is PostgreSQL's code of an undefined table.
    assert sorted(point.attributes.get("error.type", "") for point in durations) == ["", "42P01"]
    pool = points(measured, "billing.db.connection_pool", {"service": "measured"})
    assert {point.attributes["status"]: point.value for point in pool} == {"idle": 0, "active": 2, "waiting": 0}
    (utilization,) = points(measured, "billing.db.connection_pool_utilization", {"service": "measured"})
    assert utilization.value == 0.5
    database.dispose()


def test_a_connection_in_use_at_the_stop_is_closed_when_it_comes_back(database: Database) -> None:
    with database.raw() as conn:
        database.dispose()
    assert conn.closed
