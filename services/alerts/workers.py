"""The worker's entries: the job that delivers, and the loop that counts what is open."""

import logging
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Final

from opentelemetry.metrics import Meter

from services.alerts.metrics import FiringGauge
from services.alerts.usecases.alert import DELIVER, Alerts
from services.alerts.usecases.notification import Delivery
from services.kit.db import Database, is_unavailable
from services.kit.leases import Lease
from services.kit.outbox import Jobs

COUNT_EVERY: Final = timedelta(seconds=30)

_log = logging.getLogger(__name__)


def register(jobs: Jobs, delivery: Delivery) -> None:
    """Name what runs each job."""
    jobs.register(DELIVER, delivery.attempt)


class CountOpenAlerts:
    """Sets `billing_alerts_firing` every 30 s in the one process that holds the lease, and in no other."""

    name = "count open alerts"

    def __init__(self, alerts: Alerts, meter: Meter, database: Database) -> None:
        self._alerts = alerts
        self._lease = Lease(database, self.name, COUNT_EVERY * 3)
        self._gauge = FiringGauge(meter, self._lease)

    def run(self, stop: threading.Event) -> None:
        """Count until `stop`."""
        while not stop.is_set():
            self._unless_away(self._count)
            stop.wait(COUNT_EVERY.total_seconds())
        self._unless_away(self._lease.release)

    def _count(self) -> None:
        if self._lease.acquire():
            self._gauge.set(self._alerts.count_open())

    def _unless_away(self, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception as error:
            if not is_unavailable(error):
                raise
            _log.debug("open alerts not counted, the database is away", exc_info=True)
