"""Recounts a few totals from raw events, all the time: none may be other than the events that it counts."""

import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from services.kit.db import Database, is_unavailable
from services.kit.leases import Lease
from services.kit.outbox import Outbox
from services.usage.metrics import DriftState
from services.usage.store import drift
from services.usage.store.drift import Difference, Sample
from services.usage.usecases.signals import RAISE_SIGNAL

_TRIES: Final = 20
# Known ones that are looked at again: what was mended is no drift any more.
_KNOWN: Final = 100

_log = logging.getLogger(__name__)


class DriftCheck:
    """One look at a few quarters of an hour of a few customers."""

    def __init__(
        self, database: Database, outbox: Outbox, clock: Callable[[], datetime], *, tries: int = _TRIES
    ) -> None:
        self._database = database
        self._outbox = outbox
        self._clock = clock
        self._tries = tries

    def run(self) -> int:
        """Check; return how many quarters are known to differ. Each raises one signal, when it is found."""
        with self._database.transaction() as conn:
            drift.one_snapshot(conn)
            known = drift.known(conn, _KNOWN)
            picked = drift.pick(conn, self._tries)
            differences = drift.compare(conn, sorted({*known, *picked}, key=lambda each: (each.customer, each.quarter)))
        found: dict[Sample, list[Difference]] = defaultdict(list)
        for each in differences:
            found[each.sample].append(each)
        mended = [sample for sample in known if sample not in found]
        with self._database.transaction() as conn:
            for sample, parts in found.items():
                shown = [_shown(each) for each in parts]
                if drift.remember(conn, sample, shown, self._clock()):
                    _log.error("totals are not what their events give", extra={"differences": shown})
                    self._outbox.put(conn, job=RAISE_SIGNAL, payload={"request": _signal(sample, parts, shown)})
            if mended:
                drift.forget(conn, mended)
            return drift.count(conn)


class DriftLoop:
    """A loop of the worker: checks, in the process that holds the lease."""

    name = "drift"

    def __init__(self, database: Database, check: DriftCheck, state: DriftState, *, every: timedelta) -> None:
        self._check = check
        self._state = state
        self._every = every.total_seconds()
        self._lease = Lease(database, "drift", 3 * every + timedelta(seconds=5))

    def run(self, stop: threading.Event) -> None:
        """Check until stopped. PostgreSQL going away is waited out."""
        while not stop.wait(self._every):
            try:
                self._state.quarters = self._check.run() if self._lease.acquire() else None
            except Exception as error:
                self._state.quarters = None
                if not is_unavailable(error):
                    raise
                _log.warning("the drift check waits: the database is away or busy", extra={"error": str(error)})
        self._state.quarters = None
        self._lease.give_up()


def _shown(difference: Difference) -> dict[str, Any]:
    return {
        "meter": difference.meter_id,
        "start": difference.start.isoformat(),
        "stored": difference.stored,
        "counted": difference.counted,
    }


def _signal(sample: Sample, differences: Sequence[Difference], shown: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the RaiseSignalRequest as JSON."""
    customer, quarter = differences[0].customer_id, sample.quarter.isoformat().replace("+00:00", "Z")
    meters = ", ".join(sorted({each.meter_id for each in differences}))
    return {
        "type": "system_error",
        "severity": "SEVERITY_CRITICAL",
        "title": "Usage totals are not what their events give",
        "message": f"A recount of customer {customer}'s raw events of the quarter of an hour from {quarter} gives other "
        f"totals than are stored: {meters}. Do not bill the period before the cause is known.",
        "data": {"check": "totals_drift", "quarter": quarter, "differences": shown},
        "action_required": True,
        "customer_id": customer,
        "fingerprint": f"totals_drift:{customer}:{quarter}",
        "labels": {"check": "totals_drift"},
        "service": "usage",
    }
