"""Writing the live counters behind the rollup: what moved, or all that is current where Redis was emptied or replaced."""

import logging
import time
from collections.abc import Sequence
from typing import Final

from services.kit.db import Database
from services.usage.counters import Counter, Counters, CountersAway, Quota
from services.usage.store import publishing, reservations
from services.usage.store.reservations import Reserved
from services.usage.store.rollup import Moved, Turn

_SECONDS_BETWEEN: Final = 1.0
_PAGE: Final = 1_000

_log = logging.getLogger(__name__)


class Publisher:
    """Used by the one thread that rolls up."""

    def __init__(self, database: Database, counters: Counters) -> None:
        self._database = database
        self._counters = counters
        # Whether Redis has all that moved below the turns that are published now: not so at first, nor after a failure.
        self._in_step = False
        self._run = ""
        self._checked = 0.0
        self._stored = 0.0

    def publish(self, turn: Turn, moved: Sequence[Moved]) -> None:
        """Write what moved in the turn that was just committed. Redis being away is made up for later."""
        try:
            if not self._in_step or not self._is_filled():
                self._fill()
            self._counters.write(_counters(moved), generation=turn.generation, last=turn.upto, as_of=turn.as_of)
        except CountersAway:
            if self._in_step:
                _log.warning("live counters cannot be written; the database answers limit checks", exc_info=True)
            self._in_step = False
            return
        self._store(turn)

    def forget(self) -> None:
        """Begin anew with the next turn: more moved than the turns told."""
        self._in_step = False

    def _is_filled(self) -> bool:
        """Say whether the counters are complete in the server that runs now."""
        now = time.monotonic()
        if now - self._checked >= _SECONDS_BETWEEN or not self._run:
            self._run = self._counters.server_run()
            self._checked = now
        return self._counters.complete_in() == self._run

    def _fill(self) -> None:
        """Write what Redis lacks: all that is current, or what moved above the place up to which it was written."""
        filled = self._is_filled()
        mark = "" if filled else self._counters.begin_filling()
        with self._database.transaction() as conn:
            # The place first: totals that are newer than their place say are written again, older ones would stay.
            place = publishing.place(conn)
            # A restored database may be older than the counters: all of them are written again.
            whole = not filled or place.published_generation != place.generation
            above = (0, 0) if whole else (place.published_generation, place.published)
            moved = publishing.current_above(conn, *above)
        self._counters.write(_counters(moved), generation=place.generation, last=place.last, as_of=place.as_of)
        if whole:
            self._fill_reserved()
        if mark:
            self._counters.end_filling(mark, self._run)
        self._in_step = True

    def _fill_reserved(self) -> None:
        """Write all that is reserved; what changes meanwhile is written by the keeper."""
        behind = (0, 0)
        while True:
            with self._database.autocommit() as conn:
                reserved = reservations.page(conn, behind, _PAGE)
            if not reserved:
                return
            self._counters.write_reserved(quotas(reserved))
            behind = (reserved[-1].customer, reserved[-1].meter)

    def _store(self, turn: Turn) -> None:
        """Store how far the counters came, once a second: what is written twice after a crash does no harm."""
        now = time.monotonic()
        if now - self._stored >= _SECONDS_BETWEEN:
            with self._database.transaction() as conn:
                publishing.published(conn, turn.generation, turn.upto)
            self._stored = now


def quotas(reserved: Sequence[Reserved]) -> list[Quota]:
    """Return what is reserved as the live counters hold it."""
    return [Quota(each.customer_id, each.meter_id, each.generation, each.version, each.quantity) for each in reserved]


def _counters(moved: Sequence[Moved]) -> list[Counter]:
    return [Counter(each.customer_id, each.month, each.meter_id, each.period_start, each.value) for each in moved]
