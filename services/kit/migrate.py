"""Migrations: Alembic's, one process at a time, in the service's own schema.

A service's `migrations/env.py` is two lines:

    from services.kit import migrate
    migrate.run(metadata)
"""

import hashlib
import logging
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from services.kit.db import connect_options, dialect_url, is_unavailable

# Alembic is imported where it is used: it costs a start a fifth of a second, and most starts need none of it.
if TYPE_CHECKING:
    from alembic.config import Config
    from alembic.script import ScriptDirectory

WAIT_FOR_DATABASE: Final = timedelta(seconds=30)
_POLL_SECONDS: Final = 0.1

_log = logging.getLogger(__name__)


class SchemaTooNew(Exception):
    """The database was migrated by a later version of the code than this one."""


class NotMigrated(Exception):
    """The schema is older than the code, and nobody migrates it."""


class MigrationsBusy(Exception):
    """Another process has held the migration lock for too long."""


def migrate(
    database_url: str,
    schema: str,
    script_location: Path | str,
    service: str,
    *,
    wait: timedelta = WAIT_FOR_DATABASE,
    lock_wait: timedelta = timedelta(minutes=10),
) -> None:
    """Bring a schema to the newest revision, creating it where it is not there.

    Any number of processes may do this at once: one works under an advisory lock, the others wait and find it done.

    Args:
        database_url: a role that may create in the database.
        schema: the service's schema; Alembic's version table is in it too.
        script_location: the service's `migrations` folder.
        service: for `application_name` and the lock's name.
        wait: how long the database may take to answer.
        lock_wait: how long another process may take to migrate.

    Raises:
        SchemaTooNew: the schema's revision is not in `script_location`; nothing was changed.
        MigrationsBusy: the lock was not free in `lock_wait`.
        sqlalchemy.exc.OperationalError: the database did not answer in `wait`.
    """
    engine = _engine(database_url, schema, service)
    with _connect(engine, wait) as guard:
        guard.execution_options(isolation_level="AUTOCOMMIT")
        _lock(guard, schema, lock_wait)
        _create_schema(guard, schema)
        with engine.connect() as conn:
            _upgrade(conn, schema, Path(script_location), service)
    _log.info("migrated", extra={"schema": schema})


def wait_until_migrated(
    database_url: str,
    schema: str,
    script_location: Path | str,
    service: str,
    *,
    wait: timedelta = timedelta(minutes=2),
) -> None:
    """Wait until the schema is at this code's revision: what a worker does before it touches a table.

    Raises:
        SchemaTooNew: the schema's revision is not in `script_location`.
        NotMigrated: it was not brought there in `wait`.
        sqlalchemy.exc.OperationalError: the database did not answer in `wait`.
    """
    deadline = time.monotonic() + wait.total_seconds()
    engine = _engine(database_url, schema, service)
    while True:
        with _connect(engine, wait) as conn:
            script, applied = _revisions(conn, schema, Path(script_location), service)
        if set(applied) == set(script.get_heads()):
            return
        if time.monotonic() >= deadline:
            raise NotMigrated(
                f"schema {schema} is not at this version's revision: run `python -m services.{service} migrate`"
            )
        time.sleep(_POLL_SECONDS)


def run(metadata: sa.MetaData) -> None:
    """Run the migrations of the configured script folder; what an `env.py` calls.

    Args:
        metadata: the service's tables, for `--autogenerate`.
    """
    from alembic import context

    connection: sa.Connection = context.config.attributes["connection"]
    context.configure(
        connection=connection,
        target_metadata=metadata,
        version_table_schema=context.config.attributes["schema"],
        # Each its own, so that one may build an index CONCURRENTLY in an autocommit block.
        transaction_per_migration=True,
    )
    with context.begin_transaction():
        context.run_migrations()


def _connect(engine: sa.Engine, wait: timedelta) -> sa.Connection:
    deadline = time.monotonic() + wait.total_seconds()
    while True:
        try:
            return engine.connect()
        except sa.exc.DBAPIError as error:
            if not is_unavailable(error) or time.monotonic() >= deadline:
                raise
        time.sleep(_POLL_SECONDS)


def _lock(guard: sa.Connection, schema: str, wait: timedelta) -> None:
    """Take the session lock by asking again: waiting inside a statement would hold a snapshot, and with it the horizon."""
    key = int.from_bytes(
        hashlib.blake2b(f"meterscope migrations {schema}".encode(), digest_size=8).digest(), signed=True
    )
    deadline = time.monotonic() + wait.total_seconds()
    while not guard.execute(sa.select(sa.func.pg_try_advisory_lock(key))).scalar_one():
        if time.monotonic() >= deadline:
            raise MigrationsBusy(
                f"another process has been migrating schema {schema} for {wait}; look for its advisory lock in pg_locks"
            )
        time.sleep(_POLL_SECONDS)


def _create_schema(guard: sa.Connection, schema: str) -> None:
    # IF NOT EXISTS alone would ask for the right to create even where the schema is there.
    if not sa.inspect(guard).has_schema(schema):
        guard.execute(sa.schema.CreateSchema(schema, if_not_exists=True))


def _upgrade(conn: sa.Connection, schema: str, script_location: Path, service: str) -> None:
    from alembic import command

    _revisions(conn, schema, script_location, service)
    config = _config(script_location)
    config.attributes.update(connection=conn, schema=schema)
    command.upgrade(config, "head")
    conn.commit()


def _revisions(
    conn: sa.Connection, schema: str, script_location: Path, service: str
) -> tuple["ScriptDirectory", tuple[str, ...]]:
    """Return the code's revisions and the schema's.

    Raises:
        SchemaTooNew: the schema is at a revision that the code does not have.
    """
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    script = ScriptDirectory.from_config(_config(script_location))
    known = {revision.revision for revision in script.walk_revisions()}
    applied = MigrationContext.configure(conn, opts={"version_table_schema": schema}).get_current_heads()
    conn.rollback()
    for revision in applied:
        if revision not in known:
            raise SchemaTooNew(
                f"schema {schema} is at revision {revision}, which this version of {service} does not know: "
                "it was migrated by a later one; run that version, or restore the database from before"
            )
    return script, applied


def _config(script_location: Path) -> "Config":
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(script_location).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _engine(database_url: str, schema: str, service: str) -> sa.Engine:
    return sa.create_engine(
        dialect_url(database_url),
        poolclass=NullPool,
        connect_args=connect_options(schema=schema, application=f"{service}-migrate", transaction_timeout=None),
    )
