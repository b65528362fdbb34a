"""Old events and identities go, when nothing can need them any more (docs/decisions/0016).

Two floors, each the start of a month, stored before anything goes, and never moved back:

- Below `keys` no identity is kept. It follows the oldest time that is accepted: an event that old is refused, so that
  none can count a second time.
- Below `raw` no event is kept. It follows the setting, but never passes the oldest accepted time, nor an event that is
  still to be sealed: below it nothing comes in, and nothing is recounted, amended or cancelled.

Between storing a floor and acting on it every writer that may not have seen it has to end. A statement's snapshot may be
older than its transaction's id: first no older snapshot may be left, then the rollup must have passed a later id.
"""

import logging
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from services.kit.db import Database, is_unavailable
from services.usage.domain.verdict import TOO_OLD
from services.usage.store import partitions, places, quarantine, stretches
from services.usage.store.partitions import Unsettled

_BATCH: Final = 5_000
# Each asks an index of every month.
_CUSTOMERS: Final = 2_000
_WAIT_SECONDS: Final = 10.0
_POLL_SECONDS: Final = 0.05

_log = logging.getLogger(__name__)


class Retention:
    """The periodic job of that name."""

    def __init__(
        self,
        database: Database,
        clock: Callable[[], datetime],
        *,
        raw_events: timedelta,
        refused: timedelta,
        archive: bool,
        wait_seconds: float = _WAIT_SECONDS,
        customers_at_once: int = _CUSTOMERS,
    ) -> None:
        """Prepare.

        Args:
            database: of usage.
            clock: now.
            raw_events: how long raw events are kept at least.
            refused: how long held events are kept that were refused at last.
            archive: months are kept as tables `events_archive_YYYYMM` instead of being dropped.
            wait_seconds: for the writers that began before a floor was stored; then the next run goes on.
            customers_at_once: whose events are looked at in one statement.
        """
        self._database = database
        self._clock = clock
        self._raw_events = raw_events
        self._refused = refused
        self._archive = archive
        self._wait_seconds = wait_seconds
        self._customers_at_once = customers_at_once

    def run(self) -> None:
        """Do it all. Safe to repeat, and to break off."""
        with self._database.transaction() as conn:
            accepted_from = places.floor(conn, places.ACCEPTED_FROM)
        if accepted_from is None:
            return
        self._clear_quarantine(accepted_from)
        self._delete_keys(_month(accepted_from))
        self._take_events_away(accepted_from)

    def _clear_quarantine(self, accepted_from: datetime) -> None:
        """Refuse held events that are too old by now, and delete what was refused long ago."""
        refuse = partial(quarantine.refuse_older, before=accepted_from, refusal=TOO_OLD.reason, limit=_BATCH)
        delete = partial(quarantine.delete_refused, before=self._clock() - self._refused, limit=_BATCH)
        for act in (refuse, delete):
            while self._batch(act) == _BATCH:
                pass

    def _delete_keys(self, floor: datetime) -> None:
        with self._database.transaction() as conn:
            done = places.floor(conn, places.KEYS)
            keys = stretches.of_keys(conn)
        if done is not None and done >= floor:
            return
        if not self._writers_have_passed():
            return
        deleted = sum(self._batch(partial(stretches.delete, stretch=stretch, floor=floor)) for stretch in keys)
        with self._database.transaction() as conn:
            places.raise_floor(conn, places.KEYS, floor)
        _log.info("identity keys deleted", extra={"before": floor.isoformat(), "keys": deleted})

    def _take_events_away(self, accepted_from: datetime) -> None:
        floor = self._raise_raw_floor(min(accepted_from, self._clock() - self._raw_events))
        if floor is None:
            return
        with self._database.transaction() as conn:
            names = partitions.below(conn, floor)
            has_rest = partitions.has_default(conn, floor)
        if not (names or has_rest) or not self._writers_have_passed():
            return
        for name in names:
            try:
                with self._database.transaction() as conn:
                    partitions.detach(conn, name, archive=self._archive)
            except Exception as error:
                if not is_unavailable(error):
                    raise
                _log.warning("a month stays this time", extra={"partition": name}, exc_info=True)
                return
            _log.info("a month of events went", extra={"partition": name, "archived": self._archive})
        if has_rest:
            self._clear_default(floor)

    def _raise_raw_floor(self, wanted: datetime) -> datetime | None:
        """Raise the floor of raw events as far as all below it is settled; return it as it is stored then."""
        month = _month(wanted)
        with self._database.transaction() as conn:
            stored = places.floor(conn, places.RAW)
        if stored is not None and stored >= month:
            return stored
        # What is judged must stay so: no writer may be left that still accepts events below.
        if not self._writers_have_passed():
            return stored
        rest = self._oldest_unsettled(month)
        if rest is not None:
            _log.warning(
                "raw events are kept longer: some are not sealed",
                extra={"customer_id": rest.customer_id, "time": rest.time.isoformat()},
            )
            month = _month(rest.time)
        if stored is None or month > stored:
            with self._database.transaction() as conn:
                places.raise_floor(conn, places.RAW, month)
            stored = month
        return stored

    def _oldest_unsettled(self, before: datetime) -> Unsettled | None:
        """Return the oldest event before an instant that is still to be sealed.

        Customers are asked for some at a time, each in a statement of its own: what was settled stays so, and a customer
        that comes meanwhile brings no event from below the instant.
        """
        oldest: Unsettled | None = None
        behind: int | None = 0
        while behind is not None:
            with self._database.transaction() as conn:
                # An event is of interest only if it is older than what was found.
                limit = before if oldest is None else oldest.time
                found, behind = partitions.unsettled(conn, limit, behind, self._customers_at_once)
            oldest = found or oldest
        return oldest

    def _clear_default(self, floor: datetime) -> None:
        with self._database.transaction() as conn:
            if self._archive:
                stretches.prepare_archive(conn)
            found = stretches.of_default(conn)
        take = stretches.archive if self._archive else stretches.delete
        for stretch in found:
            self._batch(partial(take, stretch=stretch, floor=floor))

    def _batch(self, act: Callable[..., int]) -> int:
        """Delete some in a transaction of its own: none may last long."""
        with self._database.transaction() as conn:
            return act(conn)

    def _writers_have_passed(self) -> bool:
        """Wait until each writer that may not have seen what is stored now has ended, and is rolled up."""
        deadline = time.monotonic() + self._wait_seconds
        with self._database.transaction() as conn:
            stored = places.writer(conn)
        while self._asks(lambda conn: places.has_older_snapshot(conn, stored)):
            if time.monotonic() > deadline:
                return self._wait_longer("a statement of before is still running")
            time.sleep(_POLL_SECONDS)
        # Each of those that read the older floor has its id by now.
        with self._database.transaction() as conn:
            place, generation = places.writer(conn), places.rollup(conn).generation
        while self._asks(lambda conn: _is_behind(places.rollup(conn), generation, place)):
            if time.monotonic() > deadline:
                return self._wait_longer("the rollup is behind")
            time.sleep(_POLL_SECONDS)
        return True

    def _asks(self, question: Callable[..., bool]) -> bool:
        with self._database.autocommit() as conn:
            return question(conn)

    def _wait_longer(self, why: str) -> bool:
        _log.warning("old events and keys stay this time: %s", why)
        return False


def _is_behind(at: places.Place, generation: int, place: int) -> bool:
    return (at.generation, at.last) <= (generation, place)


def _month(instant: datetime) -> datetime:
    return instant.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
