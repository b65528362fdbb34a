"""A service's worker process: relay, scheduler, Dramatiq's threads, the service's own loops, and gRPC health."""

import logging
import signal
import threading
from collections.abc import Sequence
from datetime import timedelta
from types import FrameType
from typing import Final, Protocol

import dramatiq

from services.kit import logs, retention
from services.kit.broker import JobBroker
from services.kit.components import Components, redis_answers
from services.kit.config import KitSettings
from services.kit.db import Database
from services.kit.notices import notify
from services.kit.outbox import LEASE, Jobs, Outbox, channel
from services.kit.periodic import Periodic, Scheduler
from services.kit.relay import Relay
from services.kit.runner import Runner
from services.kit.running import RunningJobs
from services.kit.server import Server
from services.kit.statistics import JobStatistics

_IDLE_THREAD_MS: Final = 500
_FIRST_PAUSE: Final = 0.2
_LONGEST_PAUSE: Final = 5.0

_log = logging.getLogger(__name__)


class Loop(Protocol):
    """Something that runs beside the jobs until it is told to stop."""

    name: str

    def run(self, stop: threading.Event) -> None:
        """Run until `stop` is set. What it raises is logged, and it is run again after a pause."""


class Worker:
    """One worker process; any number may run beside each other."""

    def __init__(
        self,
        *,
        service: str,
        database: Database,
        redis_url: str,
        jobs: Jobs,
        settings: KitSettings,
        address: str,
        periodic: Sequence[Periodic] = (),
        loops: Sequence[Loop] = (),
        lease: timedelta = LEASE,
    ) -> None:
        """Prepare; nothing runs before `start`.

        Args:
            service: names the queue.
            database: disposed of at the stop; its pool wants a connection for each worker thread and four more.
            redis_url: the broker's.
            jobs: what can be run, besides the deletion of expired rows.
            settings: threads, grace, retention.
            address: host:port of the gRPC health service; port 0 takes a free one.
            periodic: what is run by itself.
            loops: the service's own.
            lease: see `Runner` and `Relay`.
        """
        self._database = database
        self._settings = settings
        expired = retention.Retention(
            database, outbox_rows=settings.outbox_retention, requests_=settings.request_retention
        )
        jobs = Jobs(jobs)
        jobs.register(retention.JOB, expired.run, time_limit=timedelta(minutes=10))
        running = RunningJobs(database, lease=lease)
        self._leases = _Supervised(running)
        self._broker = JobBroker(service, redis_url, jobs, Runner(database, jobs, running, lease=lease).run_row)
        self._threads = dramatiq.Worker(
            self._broker, worker_threads=settings.worker_threads, worker_timeout=_IDLE_THREAD_MS
        )
        schedules = [retention.SCHEDULE, *periodic]
        own: list[Loop] = [
            Relay(database, self._broker, jobs, lease=lease),
            Scheduler(database, Outbox(database), schedules),
            JobStatistics(database, schedules),
            Components(service, {"database": database.answers, "redis": lambda: redis_answers(self._broker.client)}),
        ]
        self._loops = [_Supervised(loop) for loop in (*own, *loops)]
        self._health = Server(
            address, lambda _server: None, service_names=(), settings=settings, check=database.answers
        )

    def start(self) -> int:
        """Start everything and return the port of the health service.

        Raises:
            BindError: the address cannot be had.
        """
        port = self._health.start()
        self._leases.start()
        self._threads.start()
        for loop in self._loops:
            loop.start()
        return port

    def stop(self) -> None:
        """Take no more jobs, let the running ones end (bounded by the grace setting), then stop the rest.

        A job that does not end in time is handed out again when its lease has run out.
        """
        for loop in self._loops:
            loop.stop.set()
        notify(self._database, channel(self._database))
        self._broker.wake()
        grace = self._settings.grace.total_seconds()
        self._threads.stop(timeout=int(grace * 1000))
        for loop in (*self._loops, self._leases):
            loop.join(grace)
        self._health.stop()
        self._broker.close()
        self._database.dispose()

    def run_until_signal(self) -> None:
        """Start, wait for SIGTERM or SIGINT, stop."""
        stop = threading.Event()

        def on_signal(_number: int, _frame: FrameType | None) -> None:
            stop.set()

        signal.signal(signal.SIGTERM, on_signal)
        signal.signal(signal.SIGINT, on_signal)
        self.start()
        stop.wait()
        _log.info("stopping")
        self.stop()


class _Supervised:
    """A loop on a thread of its own that outlives the loop's errors."""

    def __init__(self, loop: Loop) -> None:
        self.stop = threading.Event()
        self._loop = loop
        self._thread = threading.Thread(target=self._run, name=loop.name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def join(self, seconds: float) -> None:
        self.stop.set()
        self._thread.join(seconds)
        if self._thread.is_alive():
            _log.error("a loop did not stop", extra={"loop": self._loop.name, "seconds": seconds})

    def _run(self) -> None:
        pause = _FIRST_PAUSE
        while not self.stop.is_set():
            try:
                self._loop.run(self.stop)
            except Exception as error:  # noqa: BLE001 - whatever it was, the process has to go on
                logs.uncaught(error, "loop", "a loop failed and is run again", loop=self._loop.name, pause=pause)
            self.stop.wait(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)
