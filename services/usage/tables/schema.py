"""What tables have in common: where they are declared, and the columns that several of them have."""

from collections.abc import Callable
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import UserDefinedType

from services.kit.tables import outbox_tables

metadata: Final = sa.MetaData()
outbox_tables(metadata)

# Compared byte by byte, so that keyset paging has one order whatever the server's locale.
ID: Final = sa.Text(collation="C")
TIME: Final = sa.DateTime(timezone=True)


class Xid8(UserDefinedType[int]):
    """PostgreSQL's 64-bit transaction id, an int here; it travels as text."""

    cache_ok = True

    def get_col_spec(self, **_options: Any) -> str:
        """Name the type."""
        return "xid8"

    def bind_processor(self, dialect: sa.Dialect) -> Callable[[int | None], str | None]:  # noqa: ARG002
        """Write it."""
        return lambda value: None if value is None else str(value)

    def bind_expression(self, bindvalue: sa.BindParameter[int]) -> sa.ColumnElement[int]:
        """Say what the text is."""
        return sa.cast(bindvalue, self)

    def result_processor(self, dialect: sa.Dialect, coltype: object) -> Callable[[str | None], int | None]:  # noqa: ARG002
        """Read it."""
        return lambda value: None if value is None else int(value)


def state() -> list[sa.Column[Any]]:
    """What an aggregation knows of a set of events; each one uses those that it needs. States merge."""
    return [
        sa.Column("count", sa.BigInteger, nullable=False),
        sa.Column("sum", sa.Numeric, nullable=False),
        sa.Column("min", sa.Numeric),
        sa.Column("max", sa.Numeric),
        sa.Column("latest_time", TIME),
        sa.Column("latest_id", ID),
        sa.Column("latest_value", sa.Numeric),
    ]


def group() -> list[sa.Column[Any]]:
    """The digest of the group-by attributes' values, all zero without, and the values."""
    return [sa.Column("group_key", sa.Uuid, primary_key=True), sa.Column("group_values", JSONB)]
