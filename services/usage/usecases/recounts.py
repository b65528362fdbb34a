"""Counting a meter's stored events: a job that asks the rollup for one slice after the other.

The rollup alone writes totals. A slice is a row that names a customer and a range; the turn that comes beyond the
transaction which wrote it sets the meter's buckets there, and the periods around them, from raw events. By then every
transaction below the meter's `from_tx` has ended: those are the events that the rollup never took for this meter.
Whatever dies, a slice that was asked for is set, once or again, and the job goes on where the recount's row says.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Final

from services.kit.db import Database
from services.kit.outbox import Job
from services.usage.errors import RollupBehind
from services.usage.store import places, recounts
from services.usage.usecases.positions import Positions

RECOUNT_METER: Final = "recount_meter"
# Of a turn of the rollup, which sets them in one transaction.
_EVENTS_A_SLICE: Final = 50_000
_CUSTOMERS_A_SLICE: Final = 200
_WAIT_SECONDS: Final = 30.0


class Recounts:
    """Runs the job."""

    def __init__(
        self,
        database: Database,
        positions: Positions,
        clock: Callable[[], datetime],
        *,
        events_a_slice: int = _EVENTS_A_SLICE,
    ) -> None:
        self._database = database
        self._positions = positions
        self._clock = clock
        self._events_a_slice = events_a_slice

    def run(self, job: Job) -> None:
        """Recount to the end. Run again, it goes on.

        Raises:
            RollupBehind: the rollup does not come on; to be run again.
        """
        number: int = job.payload["recount"]
        while True:
            with self._database.transaction() as conn:
                tx = places.writer(conn)
                generation = places.rollup(conn).generation
                job.fence(conn)
                running = recounts.lock(conn, number)
                more = running is not None and recounts.ask(
                    conn, running, tx=tx, most_events=self._events_a_slice, most_customers=_CUSTOMERS_A_SLICE
                )
            if not self._positions.wait(generation, tx + 1, _WAIT_SECONDS):
                raise RollupBehind(_WAIT_SECONDS)
            with self._database.transaction() as conn:
                job.fence(conn)
                recounts.forget(conn, number)
                if not more:
                    recounts.end(conn, number, self._clock())
                    job.finish(conn)
                    return
