"""The migrations make what the queries are written against."""

from collections.abc import Iterator
from typing import Any, cast

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy.dialects.postgresql import JSONPATH
from sqlalchemy.dialects.postgresql.base import PGDialect

from services.kit.db import Database
from services.usage.settings import Settings
from services.usage.tables import Xid8, metadata


def is_no_partition(_item: Any, name: str | None, kind: str, _reflected: bool, _other: Any) -> bool:  # noqa: FBT001 - Alembic's form
    return kind != "table" or not str(name).startswith(("events_", "event_keys_"))


@pytest.fixture
def database(migrated: Settings) -> Iterator[Database]:
    database = Database(migrated.database_url, schema=migrated.database_schema, service="usage")
    dialect = cast("PGDialect", database.engine.dialect)
    dialect.ischema_names = {**dialect.ischema_names, "xid8": Xid8, "jsonpath": JSONPATH}
    yield database
    database.dispose()


def test_the_migrations_make_the_tables_that_the_code_names(database: Database) -> None:
    with database.transaction() as conn:
        options = {"compare_type": True, "include_object": is_no_partition}
        assert compare_metadata(MigrationContext.configure(conn, opts=options), metadata) == []


def test_the_keys_of_events_are_spread_over_sixteen_partitions(sql: psycopg.Connection[tuple[object, ...]]) -> None:
    (row,) = sql.execute("SELECT count(*) FROM pg_inherits WHERE inhparent = 'event_keys'::regclass").fetchall()
    assert row == (16,)
