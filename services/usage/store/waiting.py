"""Whose usage waits for the rollup: asked where a turn of it failed."""

from typing import Final

import sqlalchemy as sa

from services.usage.store import places
from services.usage.store.states import AHEAD, TAKEN

# As many events as the least turn takes.
_MOST: Final = 1_000
_WAITING: Final = sa.text(
    f"""
    SELECT DISTINCT c.id, m.id
    FROM (SELECT * FROM events WHERE {AHEAD} ORDER BY tx LIMIT :most) AS e
    JOIN customers AS c ON c.number = e.customer
    JOIN meters AS m ON {TAKEN}
    """  # noqa: S608 - the parts are constants
)


def customers_and_meters(conn: sa.Connection, most: int = _MOST) -> list[tuple[str, str]]:
    """Return whose events come next, as (customer, meter): of so many events, as far as meters count them."""
    place = places.rollup(conn)
    found = conn.execute(_WAITING, {"generation": place.generation, "last": place.last, "most": most})
    return [(row[0], row[1]) for row in found]
