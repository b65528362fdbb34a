"""The tables that the code knows are the tables that the migrations make."""

import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from services.billing.tables import metadata
from services.kit.db import Database


def test_the_migrations_make_the_tables_of_the_code(database: Database) -> None:
    with database.transaction() as conn:
        known = MigrationContext.configure(conn, opts={"compare_type": True, "compare_server_default": False})
        differences = [found for found in compare_metadata(known, metadata) if "alembic_version" not in str(found)]
    assert differences == []


def test_every_constraint_of_the_code_is_in_the_database(database: Database) -> None:
    declared = {
        (table.name, str(constraint.name))
        for table in metadata.tables.values()
        for constraint in table.constraints
        if isinstance(constraint, sa.CheckConstraint)
    }
    with database.transaction() as conn:
        inspector = sa.inspect(conn)
        made = {(table, check["name"]) for table in metadata.tables for check in inspector.get_check_constraints(table)}
    assert declared == made
