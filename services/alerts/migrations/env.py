"""Alembic's entry; see services/kit/migrate.py."""

from services.alerts.tables import metadata
from services.kit import migrate

migrate.run(metadata)
