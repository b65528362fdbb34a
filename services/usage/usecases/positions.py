"""Waiting for the rollup without holding a connection: one thread a process asks, and wakes those who wait."""

import logging
import threading
import time
from typing import Final

import sqlalchemy as sa

from services.kit.db import Database, is_unavailable
from services.usage.store import places
from services.usage.store.places import Place
from services.usage.usecases.notifier import Notifier, hurry

_POLL_SECONDS: Final = 0.01
# How long a stop may go unnoticed.
_LOOK_UP_SECONDS: Final = 0.25

_log = logging.getLogger(__name__)


class Positions:
    """Knows how far the rollup came, while somebody waits for it and `run` is running."""

    name = "positions"

    def __init__(self, database: Database, notifier: Notifier) -> None:
        self._database = database
        self._notifier = notifier
        self._changed = threading.Condition()
        self._place: Place | None = None
        self._waiting = 0

    def wait_for_all(self, seconds: float) -> bool:
        """Wait until everything that was committed before this call is rolled up; say whether it is.

        Args:
            seconds: how long at most.
        """
        with self._database.autocommit() as conn:
            generation = places.rollup(conn).generation
            beyond = places.behind_all(conn)
        return self.wait(generation, beyond, seconds)

    def wait(self, generation: int, beyond: int, seconds: float) -> bool:
        """Wait until every transaction below `beyond` of a generation is rolled up; say whether it is.

        Args:
            generation: in which `beyond` was taken.
            beyond: a transaction id.
            seconds: how long at most.
        """
        deadline = time.monotonic() + seconds
        self._notifier.notice()
        hurry(self._database)
        with self._changed:
            self._waiting += 1
            self._changed.notify_all()
            try:
                while not _reached(self._place, generation, beyond):
                    remaining = deadline - time.monotonic()
                    if remaining <= 0:
                        return False
                    self._changed.wait(remaining)
            finally:
                self._waiting -= 1
        return True

    def run(self, stop: threading.Event) -> None:
        """Answer until stopped."""
        while not stop.is_set():
            with self._changed:
                if not self._waiting and not self._changed.wait_for(lambda: self._waiting, _LOOK_UP_SECONDS):
                    continue
            place = self._ask()
            with self._changed:
                self._place = place
                self._changed.notify_all()
            stop.wait(_POLL_SECONDS)

    def _ask(self) -> Place | None:
        try:
            with self._database.autocommit() as conn:
                return places.rollup(conn)
        except sa.exc.SQLAlchemyError as error:
            if not is_unavailable(error):
                raise
            _log.warning("cannot ask how far the rollup came", exc_info=True)
            return None


def _reached(place: Place | None, generation: int, beyond: int) -> bool:
    return place is not None and (place.generation, place.last) >= (generation, beyond)
