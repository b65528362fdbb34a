"""What is found and told of usage."""

from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from services.usage.tables.schema import ID, TIME, metadata

# Reports that a job makes.
reports: Final = sa.Table(
    "reports",
    metadata,
    sa.Column("customer", sa.BigInteger, primary_key=True),
    sa.Column("id", ID, primary_key=True),
    sa.Column("start_time", TIME, nullable=False),
    sa.Column("end_time", TIME, nullable=False),
    sa.Column("state", sa.Text, sa.CheckConstraint("state IN ('RUNNING', 'READY', 'FAILED')"), nullable=False),
    sa.Column("progress", sa.Integer, nullable=False),
    sa.Column("error", sa.Text, nullable=False),
    # The message UsageReport, when READY.
    sa.Column("report", sa.LargeBinary),
    sa.Column("created_at", TIME, nullable=False),
    sa.Column("finished_at", TIME),
    sa.Index("reports_by_creation", "created_at"),
)

anomalies: Final = sa.Table(
    "anomalies",
    metadata,
    sa.Column("customer", sa.BigInteger, primary_key=True),
    sa.Column("id", ID, primary_key=True),
    sa.Column("meter", sa.Integer, nullable=False),
    sa.Column("kind", sa.Text, sa.CheckConstraint("kind IN ('SPIKE', 'DROP')"), nullable=False),
    # The newest window that showed it.
    sa.Column("start_time", TIME, nullable=False),
    sa.Column("end_time", TIME, nullable=False),
    sa.Column("finding", JSONB, nullable=False),
    sa.Column("created_at", TIME, nullable=False),
    sa.Index("anomalies_by_id", "id", unique=True),
    sa.Index("anomalies_by_window", "customer", "meter", "kind", "end_time"),
)
