"""A server that says nothing: whoever waits for it is told in time, and nothing half answered is used again."""

import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from eventually import eventually
from frozen import frozen

from services.kit.connection import Silent
from services.kit.db import Database, is_unavailable, lift_time_limit
from services.kit.embedded import EmbeddedPostgres, start_postgres

# The server's limit and a second, and room for a machine that is busy with other things.
TOLD_WITHIN = 1 + 1 + 2


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """A server of this module's own, to be frozen."""
    server = start_postgres(tmp_path_factory.mktemp("postgres"), durable=False)
    yield server
    server.stop()


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    made = Database(database_url, schema="kit", service="usage", transaction_timeout=timedelta(seconds=1))
    with made.transaction() as conn:
        conn.execute(sa.text("CREATE SCHEMA IF NOT EXISTS kit"))
        conn.execute(sa.text("DROP TABLE IF EXISTS kit.notes"))
        conn.execute(sa.text("CREATE TABLE kit.notes (text text PRIMARY KEY)"))
    yield made
    made.dispose()


def note(database: Database, text: str) -> None:
    with database.transaction() as conn:
        conn.execute(sa.text("INSERT INTO notes VALUES (:text)"), {"text": text})


def notes(database: Database) -> list[str]:
    with database.transaction() as conn:
        return list(conn.execute(sa.text("SELECT text FROM notes ORDER BY text")).scalars())


def backend(database: Database) -> int:
    with database.raw() as conn:
        return conn.info.backend_pid


def asked(database: Database) -> None:
    with database.autocommit() as conn:
        conn.execute(sa.text("SELECT 1"))


def copied(database: Database) -> None:
    with database.raw() as conn, conn.cursor().copy("COPY notes FROM STDIN") as copy:
        while True:
            copy.write_row(["x" * 100_000])


@pytest.mark.parametrize("ask", [asked, notes, copied])
def test_a_silent_server_is_unavailable_in_time_and_its_connection_is_not_used_again(
    database: Database, postgres: EmbeddedPostgres, ask: Callable[[Database], Any]
) -> None:
    before = backend(database)
    with frozen(postgres):
        started = time.monotonic()
        with pytest.raises((psycopg.Error, sa.exc.DBAPIError)) as silent:
            ask(database)
        assert 1 < time.monotonic() - started < TOLD_WITHIN
        assert is_unavailable(silent.value)
        # The next one is told at once.
        started = time.monotonic()
        with pytest.raises((psycopg.Error, sa.exc.DBAPIError)) as again:
            ask(database)
        assert time.monotonic() - started < 1
        assert is_unavailable(again.value)
        assert not database.answers()
    eventually(database.answers)
    assert backend(database) != before
    assert notes(database) == []


def test_a_commit_without_an_answer_may_have_happened(database: Database, postgres: EmbeddedPostgres) -> None:
    with pytest.raises(sa.exc.OperationalError) as silent, database.transaction() as conn:
        conn.execute(sa.text("INSERT INTO notes VALUES ('perhaps')"))
        still = frozen(postgres)
        still.__enter__()
    try:
        assert isinstance(silent.value.orig, Silent)
    finally:
        still.__exit__(None, None, None)
    # Whether the server finds the COMMIT or its own timer first when it goes on, nobody can say.
    eventually(database.answers)
    with database.transaction() as conn:
        conn.execute(sa.text("INSERT INTO notes VALUES ('perhaps') ON CONFLICT DO NOTHING"))
    assert notes(database) == ["perhaps"]


def test_a_server_that_takes_connections_and_never_greets_is_unavailable(
    database_url: str, postgres: EmbeddedPostgres
) -> None:
    database = Database(database_url, schema="kit", service="usage")
    with frozen(postgres):
        assert not database.answers()
    eventually(database.answers)
    database.dispose()


def test_what_is_given_more_time_is_waited_for_that_once(database: Database, postgres: EmbeddedPostgres) -> None:
    with database.transaction() as conn:
        lift_time_limit(conn)
        conn.execute(sa.text("SELECT pg_sleep(3)"))
        conn.execute(sa.text("INSERT INTO notes VALUES ('long')"))
    with database.transaction() as conn:
        lift_time_limit(conn, timedelta(seconds=10))
        conn.execute(sa.text("SELECT pg_sleep(3)"))
    with pytest.raises(sa.exc.DBAPIError) as ended, database.transaction() as conn:
        lift_time_limit(conn, timedelta(milliseconds=100))
        conn.execute(sa.text("SELECT pg_sleep(20)"))
    assert is_unavailable(ended.value)
    assert notes(database) == ["long"]
    with frozen(postgres):
        started = time.monotonic()
        assert not database.answers()
        assert time.monotonic() - started < TOLD_WITHIN
    eventually(database.answers)


def test_an_error_that_the_server_tells_of_keeps_the_connection(database: Database) -> None:
    before = backend(database)
    note(database, "once")
    with pytest.raises(sa.exc.IntegrityError):
        note(database, "once")
    with database.raw() as conn, pytest.raises(psycopg.errors.QueryCanceled), conn.transaction():
        conn.execute("SET LOCAL statement_timeout = '50ms'")
        conn.execute("SELECT pg_sleep(20)")
    assert backend(database) == before
