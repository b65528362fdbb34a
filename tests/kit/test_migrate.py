"""Migrations, run as services run them: several processes at once."""

import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from psycopg import sql

from services.kit.db import Database
from services.kit.migrate import MigrationsBusy, SchemaTooNew, migrate
from tests.eventually import eventually

ENV = """
import sqlalchemy as sa
from services.kit import migrate

migrate.run(sa.MetaData())
"""
FIRST = """
import sqlalchemy as sa
from alembic import op
from services.kit.outbox import create_kit_tables

revision, down_revision = "0001", None

def upgrade():
    create_kit_tables(op)
    op.create_table("meters", sa.Column("id", sa.Text, primary_key=True))
"""
SECOND = """
from alembic import op

revision, down_revision = "0002", "0001"

def upgrade():
    with op.get_context().autocommit_block():
        op.execute("CREATE INDEX CONCURRENTLY meters_by_id ON meters (id)")
"""
BROKEN = """
from alembic import op

revision, down_revision = "0003", "0002"

def upgrade():
    op.execute("CREATE TABLE half_done (id int)")
    op.execute("SELECT * FROM no_such_table")
"""
SLOW = """
from alembic import op

revision, down_revision = "0003", "0002"

def upgrade():
    with op.get_context().autocommit_block():
        op.execute("CREATE TABLE slow (id int)")
        op.execute("SELECT pg_sleep(60)")
"""
NAMES = ["alembic_version", "leases", "meters", "outbox", "requests", "schedules"]


@pytest.fixture
def scripts(tmp_path: Path) -> Path:
    folder = tmp_path / "migrations 100%"
    (folder / "versions").mkdir(parents=True)
    (folder / "env.py").write_text(ENV)
    add(folder, "0001", FIRST)
    add(folder, "0002", SECOND)
    return folder


@pytest.fixture
def schema(numbers: Iterator[int]) -> str:
    return f"Migrated {next(numbers)}"


def add(folder: Path, revision: str, text: str) -> None:
    (folder / "versions" / f"{revision}_revision.py").write_text(text)


def tables(database_url: str, schema: str) -> list[str]:
    with psycopg.connect(database_url) as conn:
        found = conn.execute("SELECT tablename FROM pg_tables WHERE schemaname = %s ORDER BY 1", [schema])
        return [name for (name,) in found]


def test_a_schema_is_made_and_brought_to_the_newest_revision(database_url: str, schema: str, scripts: Path) -> None:
    migrate(database_url, schema, scripts, "usage")
    assert tables(database_url, schema) == NAMES
    assert tables(database_url, "public") == []
    migrate(database_url, schema, scripts, "usage")
    database = Database(database_url, schema=schema, service="usage")
    with database.transaction() as conn:
        assert conn.execute(sa.text("SELECT version_num FROM alembic_version")).scalar_one() == "0002"
    database.dispose()


def test_processes_that_migrate_at_once_do_it_once(database_url: str, schema: str, scripts: Path) -> None:
    program = "import sys; from services.kit.migrate import migrate; migrate(*sys.argv[1:])"
    command = [sys.executable, "-c", program, database_url, schema, str(scripts), "usage"]
    running = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    errors = [process.communicate(timeout=60)[1] for process in running]
    assert [process.returncode for process in running] == [0, 0, 0, 0], errors
    assert tables(database_url, schema) == NAMES


def test_a_schema_of_a_later_version_is_refused_untouched(database_url: str, schema: str, scripts: Path) -> None:
    migrate(database_url, schema, scripts, "usage")
    (scripts / "versions" / "0002_revision.py").unlink()
    with pytest.raises(SchemaTooNew, match=f"schema {schema} is at revision 0002, which this version of usage"):
        migrate(database_url, schema, scripts, "usage")


def test_a_failed_migration_leaves_nothing_half_done(database_url: str, schema: str, scripts: Path) -> None:
    add(scripts, "0003", BROKEN)
    with pytest.raises(sa.exc.ProgrammingError, match="no_such_table"):
        migrate(database_url, schema, scripts, "usage")
    assert tables(database_url, schema) == NAMES
    (scripts / "versions" / "0003_revision.py").unlink()
    migrate(database_url, schema, scripts, "usage")


def test_a_schema_that_is_there_needs_no_right_to_create_schemas(database_url: str, schema: str, scripts: Path) -> None:
    with psycopg.connect(database_url, autocommit=True) as conn:
        conn.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
    migrate(database_url, schema, scripts, "usage")
    assert tables(database_url, schema) == NAMES


def test_whoever_waits_too_long_for_the_lock_is_told_so(database_url: str, schema: str, scripts: Path) -> None:
    add(scripts, "0003", SLOW)
    program = "import sys; from services.kit.migrate import migrate; migrate(*sys.argv[1:])"
    slow = subprocess.Popen([sys.executable, "-c", program, database_url, schema, str(scripts), "usage"])
    eventually(lambda: "slow" in tables(database_url, schema))
    with pytest.raises(MigrationsBusy, match=f"migrating schema {schema}"):
        migrate(database_url, schema, scripts, "usage", lock_wait=timedelta())
    slow.kill()
    slow.wait()


def test_a_database_that_does_not_answer_is_an_error_after_the_wait(schema: str, scripts: Path) -> None:
    with pytest.raises(sa.exc.OperationalError):
        migrate("postgresql://usage@127.0.0.1:1/usage", schema, scripts, "usage", wait=timedelta(milliseconds=200))
