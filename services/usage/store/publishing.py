"""What the live counters are written from, and how far they came."""

from typing import Final

import sqlalchemy as sa

from services.usage.store import states
from services.usage.store.customers import PERIOD_START
from services.usage.store.places import STRIPE
from services.usage.store.rollup import Moved, Published
from services.usage.tables import rollups

_NOW: Final = PERIOD_START.format(customer="c.number", zone="c.time_zone", instant="now()")
_CURRENT: Final = sa.text(
    f"""
    WITH current AS MATERIALIZED (
        SELECT c.number, c.id, c.time_zone, {_NOW} AS period_start FROM customers AS c
    )
    SELECT c.id AS customer_id, m.id AS meter_id, t.period_start,
           to_char(t.period_start AT TIME ZONE c.time_zone, 'YYYYMM') AS month,
           coalesce({states.value("t")}, 0) AS value, 0 AS added
    FROM period_totals AS t
    JOIN current AS c ON c.number = t.customer
    JOIN meters AS m ON m.number = t.meter
    WHERE t.period_start >= c.period_start
    GROUP BY c.number, c.id, c.time_zone, m.number, t.period_start
    HAVING bool_or((t.generation, t.position)
                   > (CAST(:generation AS integer), CAST(CAST(:above AS text) AS xid8)))
    """  # noqa: S608 - the parts are constants
)


def place(conn: sa.Connection) -> Published:
    """Return how far the rollup and the live counters came."""
    row = conn.execute(sa.select(rollups).where(rollups.c.stripe == STRIPE)).one()
    return Published(row.generation, row.last, row.published_generation, row.published, row.as_of)


def current_above(conn: sa.Connection, generation: int, above: int) -> list[Moved]:
    """Return the totals of current and coming periods that moved above a place; (0, 0) for all."""
    found = conn.execute(_CURRENT, {"generation": generation, "above": above})
    return [Moved(**row._mapping) for row in found]  # noqa: SLF001 - SQLAlchemy's public name


def published(conn: sa.Connection, generation: int, last: int) -> None:
    """Store how far the live counters came."""
    values = {"published_generation": generation, "published": last}
    conn.execute(sa.update(rollups).where(rollups.c.stripe == STRIPE).values(values))
