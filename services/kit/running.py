"""The jobs that run in this process: their leases are kept, and those past their time limit are broken off."""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

import sqlalchemy as sa
from dramatiq.middleware import TimeLimitExceeded
from dramatiq.middleware import threading as dramatiq_threading

from services.kit.db import Database, is_unavailable
from services.kit.outbox import Job
from services.kit.tables import outbox

_CHECK_SECONDS: Final = 0.25

_log = logging.getLogger(__name__)


@dataclass
class _Running:
    """A job on its thread. `until` is on the monotonic clock."""

    job: Job
    until: float
    thread: int = field(default_factory=threading.get_ident)
    broken_off: bool = False


class RunningJobs:
    """A loop of the worker, which outlives the others: jobs may run until the very end."""

    name = "leases"

    def __init__(self, database: Database, *, lease: timedelta) -> None:
        """Prepare. `lease` is what a renewal gives."""
        self._database = database
        self._lease = lease
        self._running: dict[str, _Running] = {}
        self._lock = threading.Lock()

    @contextmanager
    def limited(self, job: Job, time_limit: timedelta) -> Iterator[None]:
        """Keep the job's lease during the block, and end the block with `TimeLimitExceeded` if it takes too long.

        As any exception from outside, it reaches the thread only between two steps of Python, not within a system call.
        """
        with self._lock:
            self._running[job.id] = _Running(job, time.monotonic() + time_limit.total_seconds())
        try:
            yield
        finally:
            self.forget(job)

    def forget(self, job: Job) -> None:
        """Let the job's lease be; from here on its thread is not broken off."""
        with self._lock:
            self._running.pop(job.id, None)

    def run(self, stop: threading.Event) -> None:
        """Renew and break off until stopped."""
        every = self._lease.total_seconds() / 3
        next_renewal = time.monotonic() + every
        while not stop.wait(min(_CHECK_SECONDS, every)):
            self._break_off()
            if time.monotonic() >= next_renewal:
                self._renew()
                next_renewal = time.monotonic() + every

    def _break_off(self) -> None:
        now = time.monotonic()
        # Under the lock, so that it cannot strike a thread that has gone on to the next job.
        with self._lock:
            for running in self._running.values():
                if now >= running.until and not running.broken_off:
                    running.broken_off = True
                    dramatiq_threading.raise_thread_exception(running.thread, TimeLimitExceeded)  # type: ignore[no-untyped-call]

    def _renew(self) -> None:
        now = time.monotonic()
        with self._lock:
            held = [(running.job.id, running.job.token) for running in self._running.values() if now < running.until]
        if not held:
            return
        mine = (sa.tuple_(outbox.c.id, outbox.c.token).in_(held), outbox.c.state == "RUNNING")
        # A row that is locked is being finished: it needs no renewal, and waiting for it would cost the others theirs.
        unlocked = sa.select(outbox.c.id).where(*mine).with_for_update(skip_locked=True)
        values = {"available_at": sa.func.now() + self._lease}
        try:
            with self._database.transaction() as conn:
                conn.execute(sa.update(outbox).where(outbox.c.id.in_(unlocked)).values(values))
        except Exception as error:
            if not is_unavailable(error):
                raise
            _log.warning("leases could not be renewed, the database is away", extra={"jobs": len(held)})
