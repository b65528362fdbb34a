"""Alembic's entry; see services/kit/migrate.py."""

from services.kit import migrate
from services.usage.tables import metadata

migrate.run(metadata)
