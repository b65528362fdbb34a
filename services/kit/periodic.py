"""Periodic jobs: a row of `schedules` each; whoever locks a due one puts an outbox row and moves it on, in one transaction.

Missed runs coalesce into one, and no further run is put while the last one is open.
"""

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from services.kit.db import Database, is_unavailable
from services.kit.outbox import Outbox
from services.kit.tables import outbox, schedules

_POLL_SECONDS: Final = 1.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Periodic:
    """A job that runs by itself.

    Attributes:
        name: of the schedule.
        every: the time between the starts of two runs; the first is due at once.
        job: a registered job; it gets the payload `{"schedule": name}`.
    """

    name: str
    every: timedelta
    job: str


class Scheduler:
    """A loop of the worker. Any number may run."""

    name = "scheduler"

    def __init__(self, database: Database, outbox_: Outbox, periodic: Sequence[Periodic]) -> None:
        self._database = database
        self._outbox = outbox_
        self._periodic = {each.name: each for each in periodic}
        self._declared = False

    def run(self, stop: threading.Event) -> None:
        """Put what is due until stopped. PostgreSQL going away is waited out."""
        pause = 0.0
        while not stop.wait(pause):
            try:
                pause = self._turn()
            except Exception as error:
                if not is_unavailable(error):
                    raise
                _log.warning("schedules wait: the database is away", extra={"error": str(error)})
                pause = _POLL_SECONDS

    def _turn(self) -> float:
        """Put what is due; return the seconds until it is worth looking again."""
        if not self._declared:
            self._declare()
            self._declared = True
        mine = schedules.c.name.in_(self._periodic)
        with self._database.transaction() as conn:
            now = conn.execute(sa.select(sa.func.now())).scalar_one()
            due = sa.select(schedules).where(mine, schedules.c.next_run_at <= now).with_for_update(skip_locked=True)
            for row in conn.execute(due).all():
                self._take(conn, self._periodic[row.name], row.next_run_at, row.outbox_id, now)
            following = conn.execute(sa.select(sa.func.min(schedules.c.next_run_at)).where(mine)).scalar_one()
        return float(min(max((following - now).total_seconds(), 0.01), _POLL_SECONDS))

    def _take(self, conn: sa.Connection, periodic: Periodic, due: datetime, last: str | None, now: datetime) -> None:
        open_states = ("QUEUED", "HANDED_OUT", "RUNNING")
        still_open = sa.select(outbox.c.id).where(outbox.c.id == last, outbox.c.state.in_(open_states))
        row_id = conn.execute(still_open).scalar_one_or_none()
        if row_id is None:
            row_id = self._outbox.put(conn, job=periodic.job, payload={"schedule": periodic.name})
        missed = (now - due) // periodic.every
        values = {"next_run_at": due + periodic.every * (missed + 1), "outbox_id": row_id}
        conn.execute(sa.update(schedules).where(schedules.c.name == periodic.name).values(values))

    def _declare(self) -> None:
        rows = [{"name": each.name, "job": each.job} for each in self._periodic.values()]
        if not rows:
            return
        declare = insert(schedules).values(rows)
        with self._database.transaction() as conn:
            conn.execute(declare.on_conflict_do_update(index_elements=["name"], set_={"job": declare.excluded.job}))
