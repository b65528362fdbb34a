"""State gauges of a service's jobs, read by one process of them all: a value that two exported would outlive its truth."""

import logging
import threading
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Final

import sqlalchemy as sa
from opentelemetry import metrics
from opentelemetry.metrics import Observation

from services.kit.db import Database, is_unavailable
from services.kit.instruments import Read
from services.kit.leases import Lease
from services.kit.metrics import JOB_INTERVAL, JOBS_DEAD, JOBS_QUEUED, JOBS_STUCK, LAST_JOB
from services.kit.periodic import Periodic
from services.kit.tables import outbox, schedules

STUCK_AFTER: Final = timedelta(minutes=5)
_EVERY: Final = timedelta(seconds=30)

_log = logging.getLogger(__name__)


class JobStatistics:
    """A loop of the worker: reads the gauges every 30 s while it holds the lease, and reports nothing otherwise."""

    name = "statistics"

    def __init__(self, database: Database, periodic: Sequence[Periodic] = (), *, every: timedelta = _EVERY) -> None:
        """Prepare.

        Args:
            database: whose jobs.
            periodic: those that run by themselves: each has a heartbeat, also before it ever ran.
            every: the time between two readings.
        """
        self._database = database
        self._periodic = {each.name: each for each in periodic}
        self._every = every
        self._lease = Lease(database, "job statistics", every * 3)
        self._counts: dict[str, int] = {}
        self._heartbeats: dict[str, float] = {}
        # A scope of its own for each service: the SDK keeps only the first callback of a name within a scope.
        meter = metrics.get_meter("services.kit.jobs", attributes={"service": database.service})
        JOBS_QUEUED.observe(meter, self._observer("queued"))
        JOBS_STUCK.observe(meter, self._observer("stuck"))
        JOBS_DEAD.observe(meter, self._observer("dead"))
        LAST_JOB.observe(meter, self._observe_heartbeats)
        JOB_INTERVAL.observe(meter, self._observe_intervals)

    def run(self, stop: threading.Event) -> None:
        """Read until stopped."""
        while not stop.is_set():
            try:
                if self._lease.acquire():
                    self._read()
            except Exception as error:
                if not is_unavailable(error):
                    raise
                _log.debug("no statistics, the database is away", exc_info=True)
            stop.wait(self._every.total_seconds())
        self._lease.give_up()

    def _read(self) -> None:
        open_ = sa.text("state IN ('QUEUED', 'HANDED_OUT', 'RUNNING')")
        late = outbox.c.due_at < sa.func.now() - STUCK_AFTER
        with self._database.transaction() as conn:
            queued = sa.select(sa.func.count(), sa.func.count().filter(late)).select_from(outbox).where(open_)
            waiting, stuck = conn.execute(queued).one()
            dead = sa.select(sa.func.count()).select_from(outbox).where(outbox.c.state == "DEAD")
            self._counts = {"queued": waiting, "stuck": stuck, "dead": conn.execute(dead).scalar_one()}
            seconds = sa.func.extract("epoch", schedules.c.succeeded_at)
            ran = sa.select(schedules.c.name, seconds).where(
                schedules.c.name.in_(self._periodic), schedules.c.succeeded_at.is_not(None)
            )
            succeeded = {name: float(at) for name, at in conn.execute(ran)}
            # One that never came through is missing as well, and a series that is not there is no alert. Rows of jobs
            # that an older version had are nobody's any more.
            self._heartbeats = dict.fromkeys(self._periodic, 0.0) | succeeded

    def _observer(self, status: str) -> Read:
        def observe() -> Iterable[Observation]:
            if self._lease.held and status in self._counts:
                yield Observation(self._counts[status], {"queue": self._database.service})

        return observe

    def _observe_heartbeats(self) -> Iterable[Observation]:
        if self._lease.held:
            for name, at in self._heartbeats.items():
                yield Observation(at, {"job_name": name})

    def _observe_intervals(self) -> Iterable[Observation]:
        if self._lease.held:
            for name, periodic in self._periodic.items():
                yield Observation(periodic.every.total_seconds(), {"job_name": name})
