"""Generations: after a restore into another cluster transaction ids begin anew, and rows are told apart by generation.

Until the generation is raised no writer commits anything: each checks the cluster's identifier in its transaction.
"""

from typing import Final

import sqlalchemy as sa

from services.usage.store import rollup
from services.usage.store.places import STRIPE
from services.usage.store.rollup import Turn
from services.usage.tables import generations, rollups

_BEYOND_ALL: Final = 2**63 - 1
_RAISE: Final = sa.text(
    """
    INSERT INTO generations (number, system_identifier)
    SELECT (SELECT max(number) FROM generations) + 1, system_identifier FROM pg_control_system()
    """
)


def rest(conn: sa.Connection) -> Turn | None:
    """Keep writers out, and return the turn that takes in all that is left of the older generation: it has all ended.

    None if another process has raised the generation already.
    """
    conn.execute(sa.text("LOCK TABLE generations IN EXCLUSIVE MODE"))
    if rollup.is_same_cluster(conn):
        return None
    rollup.prepare(conn)
    mine = sa.select(rollups.c.generation, rollups.c.last).where(rollups.c.stripe == STRIPE).with_for_update()
    number, last = conn.execute(mine).one()
    return Turn(number, last, _BEYOND_ALL, None)


def raise_one(conn: sa.Connection) -> None:
    """Begin the next generation: the rollup's place is before all of its transactions."""
    conn.execute(_RAISE)
    newest = sa.select(sa.func.max(generations.c.number)).scalar_subquery()
    conn.execute(sa.update(rollups).where(rollups.c.stripe == STRIPE).values(generation=newest, last=0))
