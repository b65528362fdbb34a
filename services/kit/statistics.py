"""State gauges of a service's jobs, read by one process of them all: a value that two exported would outlive its truth."""

import logging
import threading
from collections.abc import Iterable
from datetime import timedelta
from typing import Final

import sqlalchemy as sa
from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Observation

from services.kit.db import Database, is_unavailable
from services.kit.leases import Lease
from services.kit.tables import outbox, schedules

STUCK_AFTER: Final = timedelta(minutes=5)
_EVERY: Final = timedelta(seconds=30)

_log = logging.getLogger(__name__)


class JobStatistics:
    """A loop of the worker: reads the gauges every 30 s while it holds the lease, and reports nothing otherwise."""

    name = "statistics"

    def __init__(self, database: Database, *, every: timedelta = _EVERY) -> None:
        self._database = database
        self._every = every
        self._lease = Lease(database, "job statistics", every * 3)
        self._counts: dict[str, int] = {}
        self._heartbeats: dict[str, float] = {}
        # A scope of its own for each service: the SDK keeps only the first callback of a name within a scope.
        meter = metrics.get_meter("services.kit.jobs", attributes={"service": database.service})
        for status, description in (
            ("queued", "Jobs that are not done"),
            ("stuck", "Jobs that are not done five minutes after they were due"),
            ("dead", "Jobs that were given up"),
        ):
            meter.create_observable_gauge(
                f"billing.jobs.{status}", callbacks=[self._observer(status)], description=description
            )
        meter.create_observable_gauge(
            "billing.last_job_timestamp",
            callbacks=[self._observe_heartbeats],
            description="When a periodic job last succeeded, in unix seconds",
        )

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
            ran = sa.select(schedules.c.name, seconds).where(schedules.c.succeeded_at.is_not(None))
            self._heartbeats = {name: float(at) for name, at in conn.execute(ran)}

    def _observer(self, status: str) -> metrics.CallbackT:
        def observe(_options: CallbackOptions) -> Iterable[Observation]:
            if self._lease.held and status in self._counts:
                yield Observation(self._counts[status], {"queue": self._database.service})

        return observe

    def _observe_heartbeats(self, _options: CallbackOptions) -> Iterable[Observation]:
        if self._lease.held:
            for name, at in self._heartbeats.items():
                yield Observation(at, {"job_name": name})
