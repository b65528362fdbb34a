"""Hands outbox rows to the broker: on notice at once, else every second. Any number of relays may run."""

import logging
import threading
from datetime import timedelta
from typing import Any, Final

import redis
import sqlalchemy as sa

from services.kit.broker import JobBroker
from services.kit.db import Database, is_unavailable
from services.kit.notices import Listener
from services.kit.outbox import LEASE, Jobs, channel
from services.kit.tables import outbox

_POLL_SECONDS: Final = 1.0
_PAUSE_SECONDS: Final = 0.5
_BATCH: Final = 100
# Messages that wait in Redis: enough to keep the threads busy, few enough that their leases don't run out meanwhile.
_WINDOW: Final = 100
_WINDOW_POLL_SECONDS: Final = 0.02

_log = logging.getLogger(__name__)


class Relay:
    """A loop of the worker."""

    name = "relay"

    def __init__(self, database: Database, broker: JobBroker, jobs: Jobs, *, lease: timedelta = LEASE) -> None:
        """Prepare.

        Args:
            database: where the outbox is.
            broker: where rows go.
            jobs: only these are handed out; rows of other names wait for a worker that knows them.
            lease: a row that was handed out and has not started is handed out again after so long.
        """
        self._database = database
        self._broker = broker
        self._names = [spec.name for spec in jobs]
        self._lease = lease
        self._away = False

    def run(self, stop: threading.Event) -> None:
        """Hand out until stopped. PostgreSQL or Redis going away is waited out."""
        listener = Listener(self._database, channel(self._database))
        try:
            while not stop.is_set():
                self._turn(listener, stop)
        finally:
            listener.close()

    def _turn(self, listener: Listener, stop: threading.Event) -> None:
        try:
            room = _WINDOW - self._broker.waiting()
            handed_out = self._hand_out(min(room, _BATCH)) if room > 0 else 0
        except Exception as error:
            if not (isinstance(error, redis.RedisError) or is_unavailable(error)):
                raise
            if not self._away:
                _log.warning("jobs wait: Redis or the database is away", extra={"error": str(error)})
            self._away = True
            stop.wait(_PAUSE_SECONDS)
            return
        if self._away:
            _log.info("jobs are handed out again")
        self._away = False
        if room <= 0:
            stop.wait(_WINDOW_POLL_SECONDS)
        elif handed_out < min(room, _BATCH):
            listener.wait(_POLL_SECONDS, stop)

    def _hand_out(self, limit: int) -> int:
        """Claim rows and queue them; return how many."""
        rows = self._claim(limit)
        for position, row in enumerate(rows):
            try:
                self._broker.send(row.job, row.id)
            except redis.RedisError:
                self._take_back([unsent.id for unsent in rows[position:]])
                raise
        return len(rows)

    def _claim(self, limit: int) -> list[Any]:
        # Conditions of partial indexes are spelled as there: with parameters, a prepared plan could not use them.
        candidate, earlier = outbox.alias("candidate"), outbox.alias("earlier")
        held_up = sa.exists().where(
            earlier.c.aggregate == candidate.c.aggregate,
            earlier.c.seq < candidate.c.seq,
            sa.text("earlier.state <> 'DONE' AND earlier.aggregate <> ''"),
        )
        ready = (
            sa.select(candidate.c.id)
            .where(
                sa.text("candidate.state IN ('QUEUED', 'HANDED_OUT', 'RUNNING')"),
                candidate.c.available_at <= sa.func.now(),
                candidate.c.job.in_(self._names),
                ~held_up,
            )
            .order_by(candidate.c.available_at, candidate.c.seq)
            .limit(limit)
            .with_for_update(skip_locked=True, of=candidate)
            .cte("ready")
        )
        claim = (
            sa.update(outbox)
            .where(outbox.c.id == ready.c.id)
            .values(state="HANDED_OUT", available_at=sa.func.now() + self._lease)
            .returning(outbox.c.id, outbox.c.job, outbox.c.seq)
        )
        with self._database.transaction() as conn:
            return sorted(conn.execute(claim), key=lambda claimed: int(claimed.seq))

    def _take_back(self, ids: list[str]) -> None:
        """Let rows be handed out as soon as Redis is back. One of them may be queued after all, which does no harm."""
        mine = (outbox.c.id.in_(ids), outbox.c.state == "HANDED_OUT")
        with self._database.transaction() as conn:
            conn.execute(sa.update(outbox).where(*mine).values(state="QUEUED", available_at=sa.func.now()))
