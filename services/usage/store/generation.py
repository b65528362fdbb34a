"""Generations: after a restore into another cluster transaction ids begin anew, and rows are told apart by generation.

Until the generation is raised no writer commits anything: each checks the cluster's identifier in its transaction.
"""

from typing import Final

import sqlalchemy as sa

from services.kit.db import lift_time_limit
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
    # All that was left may be much, and with no writer at work nobody waits for this transaction.
    lift_time_limit(conn)
    conn.execute(sa.text("LOCK TABLE generations IN EXCLUSIVE MODE"))
    if rollup.is_same_cluster(conn):
        return None
    rollup.prepare(conn)
    mine = sa.select(rollups.c.generation, rollups.c.last).where(rollups.c.stripe == STRIPE).with_for_update()
    number, last = conn.execute(mine).one()
    return Turn(number, last, _BEYOND_ALL, None)


def raise_one(conn: sa.Connection) -> None:
    """Begin the next generation: the rollup's place is before all of its transactions.

    They see the new generation, so that their ids are above this transaction's. From 0 on, the first turn would look at
    every event of the older generation whose id is below the new cluster's.
    """
    conn.execute(_RAISE)
    newest = sa.select(sa.func.max(generations.c.number)).scalar_subquery()
    values = {"generation": newest, "last": sa.func.pg_current_xact_id()}
    conn.execute(sa.update(rollups).where(rollups.c.stripe == STRIPE).values(values))
