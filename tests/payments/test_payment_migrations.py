import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from services.kit.db import Database
from services.payments import tables
from services.payments.providers import sandbox_store


def test_the_migrations_make_the_tables_that_the_code_names(database: Database) -> None:
    together = sa.MetaData()
    for table in (*tables.metadata.sorted_tables, *sandbox_store.metadata.sorted_tables):
        table.to_metadata(together)
    with database.transaction() as conn:
        context = MigrationContext.configure(conn, opts={"compare_type": True})
        assert compare_metadata(context, together) == []
