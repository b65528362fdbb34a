"""The worker's entries: which job runs what, and the loop that reads the gauges."""

import logging
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

from services.billing.metrics import Gauges
from services.billing.usecases.bill_runs import BILL_JOB, PLAN_JOB, BillRuns
from services.billing.usecases.entitlements import EXTEND_JOB, PUT_JOB, Entitlements
from services.billing.usecases.followups import COLLECT_JOB, SIGNAL_JOB, Collection, Signals
from services.billing.usecases.periods import Periods
from services.billing.usecases.statistics import Statistics
from services.kit.db import is_unavailable
from services.kit.leases import Lease
from services.kit.outbox import PATIENT, Job, Jobs
from services.kit.periodic import Periodic

COUNT_EVERY: Final = timedelta(seconds=30)
EXTEND: Final = Periodic("extend_entitlements", every=timedelta(hours=1), job=EXTEND_JOB)

_LONGEST_RETRY_WAIT: Final = timedelta(minutes=5)

_log = logging.getLogger(__name__)


def register(
    jobs: Jobs,
    *,
    entitlements: Entitlements,
    bill_runs: BillRuns,
    periods: Periods,
    collection: Collection,
    signals: Signals,
    bill_attempts: int,
    bill_retry: timedelta,
    clock: Callable[[], datetime],
) -> None:
    """Name what runs each job."""

    def extend(_job: Job) -> None:
        entitlements.extend(clock())

    jobs.register(PUT_JOB, entitlements.send, max_attempts=PATIENT)
    jobs.register(EXTEND_JOB, extend)
    jobs.register(PLAN_JOB, bill_runs.plan_on)
    # The use case itself ends the job at `bill_attempts`; the one more gives up where a process died during the last.
    jobs.register(BILL_JOB, periods.bill, max_attempts=bill_attempts + 1, backoff=(bill_retry, _LONGEST_RETRY_WAIT))
    jobs.register(COLLECT_JOB, collection.collect, max_attempts=PATIENT)
    jobs.register(SIGNAL_JOB, signals.raise_signal, max_attempts=PATIENT)


class ReadState:
    """Sets the gauges every 30 s in the one process that holds the lease, and in no other."""

    name = "read state"

    def __init__(self, statistics: Statistics, gauges: Gauges, lease: Lease) -> None:
        self._statistics = statistics
        self._gauges = gauges
        self._lease = lease

    def run(self, stop: threading.Event) -> None:
        """Read until `stop`."""
        while not stop.is_set():
            self._unless_away(self._read)
            stop.wait(COUNT_EVERY.total_seconds())
        self._unless_away(self._lease.release)

    def _read(self) -> None:
        if self._lease.acquire():
            self._gauges.set(self._statistics.read())

    def _unless_away(self, act: Callable[[], object]) -> None:
        try:
            act()
        except Exception as error:
            if not is_unavailable(error):
                raise
            _log.debug("state not read, the database is away", exc_info=True)
