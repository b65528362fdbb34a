"""What has to be done now and then: partitions ahead of time, the oldest accepted time, old changes and reports."""

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

import sqlalchemy as sa

from services.kit.db import Database, is_unavailable
from services.usage.domain.instant import EARLIEST
from services.usage.store import customers, partitions, places, reports
from services.usage.usecases.reports.reports import GIVEN_UP_AFTER

_AHEAD: Final = timedelta(days=62)
# Months back that get a partition: a backfill of the billing period before the last one is ordinary.
_BACK: Final = timedelta(days=93)
_CHANGES_KEPT: Final = timedelta(days=1)
# A report may have megabytes.
_REPORTS_AT_ONCE: Final = 100

_log = logging.getLogger(__name__)


class Upkeep:
    """The periodic job of that name."""

    def __init__(
        self, database: Database, clock: Callable[[], datetime], *, accepted: timedelta, reports_kept: timedelta
    ) -> None:
        """Prepare.

        Args:
            database: of usage.
            clock: now.
            accepted: how far back from now events are accepted.
            reports_kept: how long reports that jobs made are kept.
        """
        self._database = database
        self._clock = clock
        self._accepted = accepted
        self._reports_kept = reports_kept

    def run(self) -> None:
        """Do it all. Safe to repeat."""
        now = self._clock()
        self.make_partitions(now)
        with self._database.transaction() as conn:
            places.raise_floor(conn, places.ACCEPTED_FROM, now - self._accepted)
            customers.purge_changes(conn, now - _CHANGES_KEPT)
        self._let_reports_go(now)

    def make_partitions(self, now: datetime) -> None:
        """Make the partitions of the months around `now`. One that others are in the way of is made the next time."""
        with self._database.transaction() as conn:
            # Months that have gone do not come back.
            first = max(now - _BACK, places.floor(conn, places.RAW) or EARLIEST)
            wanted = partitions.missing(conn, first, now + _AHEAD)
        for name, start, end in wanted:
            try:
                with self._database.transaction() as conn:
                    partitions.create(conn, name, start, end)
            except sa.exc.DBAPIError as error:
                if not is_unavailable(error):
                    raise
                _log.warning("no partition made this time", extra={"partition": name}, exc_info=True)

    def _let_reports_go(self, now: datetime) -> None:
        """Give those up whose job died without a word, and remove those that are old."""
        with self._database.transaction() as conn:
            why = "the job that made the report was lost; ask for its range again"
            lost = reports.give_up(conn, now - GIVEN_UP_AFTER, why, now)
        if lost:
            _log.error("gave reports up whose job was lost", extra={"reports": lost})
        gone = _REPORTS_AT_ONCE
        while gone == _REPORTS_AT_ONCE:
            with self._database.transaction() as conn:
                gone = reports.purge(conn, now - self._reports_kept, _REPORTS_AT_ONCE)
