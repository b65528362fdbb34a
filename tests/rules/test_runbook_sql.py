"""The runbooks' SQL, run on the real tables of usage: their own, and those that every service has."""

import re
from collections.abc import Iterator

import psycopg
import pytest

from services.kit.migrate import migrate
from services.usage.__main__ import MIGRATIONS
from tests.rules.rule_files import RUNBOOKS

STATEMENTS = [
    (path.stem, statement.strip())
    for path in sorted(RUNBOOKS.glob("*.md"))
    for block in re.findall(r"```sql\n(.*?)```", path.read_text(), flags=re.DOTALL)
    for statement in block.split(";")
    if statement.strip()
]


@pytest.fixture(scope="module")
def connection(database_url: str) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    migrate(database_url, "usage", MIGRATIONS, "usage")
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


@pytest.mark.parametrize("statement", [statement for _, statement in STATEMENTS])
def test_a_runbook_s_sql_runs(connection: psycopg.Connection[tuple[object, ...]], statement: str) -> None:
    # As a page's reader asks: as that service's user, whose search path is its own schema.
    connection.execute(statement)


def test_a_dead_job_that_is_sent_again_is_due_at_once(connection: psycopg.Connection[tuple[object, ...]]) -> None:
    connection.execute(
        "INSERT INTO outbox (id, job, payload, state, attempts, due_at, available_at, finished_at)"
        " VALUES ('obx_1', 'raise_signal', '{}', 'DEAD', 8, now(), now() + interval '1 day', now())"
    )
    (resend,) = [statement for page, statement in STATEMENTS if page == "BillingJobsDead" and "UPDATE" in statement]
    connection.execute(resend)
    query = "SELECT state, attempts, available_at <= now() AND due_at <= now(), finished_at FROM outbox"
    assert connection.execute(query).fetchall() == [("QUEUED", 0, True, None)]
