"""The payments service in this process, on real PostgreSQL and Valkey."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from services import payments
from services.kit.db import Database
from services.kit.migrate import migrate


@pytest.fixture(scope="module")
def migrated_url(database_url: str) -> str:
    migrate(database_url, "payments", Path(payments.__path__[0]) / "migrations", "payments")
    return database_url


@pytest.fixture(scope="module")
def database(migrated_url: str) -> Iterator[Database]:
    database = Database(migrated_url, schema="payments", service="payments")
    yield database
    database.dispose()
