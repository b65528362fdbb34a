"""What has to go on for limits beside the calls: reservations run out, live counters learn of them, gauges are read.

One worker does it, by lease.
"""

import logging
import threading
import time
from datetime import timedelta
from typing import Final

from services.kit.db import Database, is_unavailable
from services.kit.leases import Lease
from services.usage.counters import Counters, CountersAway
from services.usage.metrics import LimitState
from services.usage.store import customers, reservations, shares
from services.usage.usecases.defaults import DefaultLimits
from services.usage.usecases.publish import quotas

_LEASE: Final = timedelta(seconds=10)
_TICK_SECONDS: Final = 0.25
_REST_PER_ROUND: Final = 3.0
_RENEW_SECONDS: Final = 2.5
_GAUGES_SECONDS: Final = 30.0
_PURGE_SECONDS: Final = 3_600.0
_MOST: Final = 500

_log = logging.getLogger(__name__)


class Keeper:
    """A loop of the worker."""

    name = "limits"

    def __init__(
        self,
        database: Database,
        counters: Counters,
        defaults: DefaultLimits,
        state: LimitState,
        *,
        most_customers: int,
        kept: timedelta,
    ) -> None:
        """Prepare.

        Args:
            database: of usage.
            counters: learn what is reserved, and tell of their server.
            defaults: put in force when the lease is taken.
            state: what the gauges show; empty while another process holds the lease.
            most_customers: customers with a gauge of their own.
            kept: how long reservations that hold no more are kept.
        """
        self._database = database
        self._counters = counters
        self._defaults = defaults
        self._state = state
        self._most_customers = most_customers
        self._kept = kept
        self._lease = Lease(database, "limits", _LEASE)
        state.is_held = lambda: self._lease.held
        self._renewed = self._measured = self._purged = float("-inf")
        self._is_new = True

    def run(self, stop: threading.Event) -> None:
        """Go on until stopped. PostgreSQL or Redis going away is waited out."""
        away = False
        pause = _TICK_SECONDS
        while not stop.wait(pause):
            started = time.monotonic()
            try:
                if self._holds_lease():
                    self._round()
                away = False
            except Exception as error:
                if not is_unavailable(error):
                    raise
                # Once an outage: this is asked several times a second.
                if not away:
                    _log.warning("reservations are not swept: the database is away", extra={"error": str(error)})
                away = True
            # With a great many reservations a sweep takes long: most of the time is left to others.
            pause = max(_TICK_SECONDS, _REST_PER_ROUND * (time.monotonic() - started))
        self._give_up()

    def sweep(self) -> None:
        """Mark the reservations that count no more, and tell the live counters what is reserved now."""
        with self._database.autocommit() as conn:
            ending = reservations.ending(conn, _MOST)
        for customer, meter in ending:
            with self._database.transaction() as conn:
                reservations.end(conn, customer, meter)
        with self._database.autocommit() as conn:
            changed = reservations.unpublished(conn, _MOST)
        if not changed:
            return
        try:
            self._counters.write_reserved(quotas(changed))
        except CountersAway:
            # The database answers limit checks meanwhile.
            _log.debug("live counters cannot be told what is reserved", exc_info=True)
            return
        with self._database.transaction() as conn:
            reservations.published(conn, changed)

    def measure(self) -> None:
        """Read what the gauges show."""
        with self._database.autocommit() as conn:
            self._state.shares = shares.highest(conn, self._most_customers)
            self._state.without_plan = customers.without_plan(conn, self._most_customers)
        try:
            self._state.server = self._counters.server()
        except CountersAway:
            self._state.server = None

    def purge(self) -> None:
        """Remove reservations that ended long ago."""
        removed = _MOST
        while removed == _MOST:
            with self._database.transaction() as conn:
                removed = reservations.purge(conn, self._kept, _MOST)

    def _round(self) -> None:
        if self._is_new:
            self._defaults.put_in_force()
            self._is_new = False
        self.sweep()
        now = time.monotonic()
        if now - self._measured >= _GAUGES_SECONDS:
            self._measured = now
            self.measure()
        if now - self._purged >= _PURGE_SECONDS:
            self._purged = now
            self.purge()

    def _holds_lease(self) -> bool:
        now = time.monotonic()
        if self._lease.held and now - self._renewed < _RENEW_SECONDS:
            return True
        if now - self._renewed < _RENEW_SECONDS / 2:
            return False
        token = self._lease.token
        held = self._lease.acquire()
        self._renewed = now
        if not held:
            self._report_nothing()
        elif self._lease.token != token:
            self._is_new = True
            self._measured = float("-inf")
        return held

    def _report_nothing(self) -> None:
        self._state.shares, self._state.without_plan, self._state.server = (), (), None

    def _give_up(self) -> None:
        self._report_nothing()
        self._lease.give_up()
