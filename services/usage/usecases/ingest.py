"""Taking events in: judged one by one, stored in one transaction, acknowledged when that is durable."""

import logging
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

import psycopg
from opentelemetry import trace

from services.kit.db import Database
from services.kit.telemetry import KEEP
from services.usage.domain.event import Event
from services.usage.domain.instant import MICROSECONDS
from services.usage.domain.verdict import ACCEPTED, UNSTORABLE, Verdict
from services.usage.store import ingest as store
from services.usage.store.placed import Placed
from services.usage.usecases.catalogue import Catalogue
from services.usage.usecases.combiner import Combiner
from services.usage.usecases.notifier import Notifier

MAX_EVENTS: Final = 10_000
_WORTHWHILE: Final = 250  # events: as much work as the transaction around them
_DAY_US: Final = 86_400 * MICROSECONDS
_MOST_SAMPLES: Final = 200_000
# Spares the Python function that a NamedTuple's own constructor is.
_new: Final = tuple.__new__

_log = logging.getLogger(__name__)


class Ingest:
    """The path of every event into the tables."""

    def __init__(
        self,
        database: Database,
        catalogue: Catalogue,
        notifier: Notifier,
        *,
        clock: Callable[[], datetime],
        writers: int,
    ) -> None:
        """Prepare.

        Args:
            database: of usage.
            catalogue: knows customers and event types.
            notifier: tells the rollup.
            clock: now.
            writers: transactions at a time; what arrives meanwhile shares the next ones.
        """
        self._database = database
        self._catalogue = catalogue
        self._notifier = notifier
        self._clock = clock
        self._combined: Combiner[Placed, Verdict] = Combiner(
            self._store, places=writers, most=MAX_EVENTS, worthwhile=_WORTHWHILE
        )
        self._sampled: set[tuple[bytes, bytes, int]] = set()

    def take(self, events: Sequence[Event], span_id: bytes) -> Sequence[Verdict]:
        """Store events durably and return what became of each.

        Args:
            events: admitted ones, in the order of the request.
            span_id: of the span that takes them in (8 bytes), empty outside a trace.

        Raises:
            psycopg.OperationalError: the database is away, or the commit's outcome is not known. Nothing is
                acknowledged; all of it may be sent again.
        """
        placed = [
            _new(Placed, (event, customer, reason, span_id, bool(event.trace_id) and self._is_sample(customer, event)))
            for event, (customer, reason) in zip(events, self._catalogue.place(events), strict=True)
        ]
        samples = [index for index, each in enumerate(placed) if each.sampled]
        if samples:
            trace.get_current_span().set_attribute(KEEP, True)
        verdicts: Sequence[Verdict] = ()
        try:
            verdicts = self._combined(placed)
        finally:
            for index in samples:
                if not verdicts or verdicts[index] is not ACCEPTED:
                    self._sampled.discard(_day(placed[index].customer, placed[index].event))
        self._notifier.notice()
        return verdicts

    def _is_sample(self, customer: bytes, event: Event) -> bool:
        """Say whether an event's trace is to be kept: the first that this process sees of a customer, type and day.

        Several processes may each keep one; the rollup points to the first of them.
        """
        if not customer:
            return False
        day = _day(customer, event)
        if day in self._sampled:
            return False
        if len(self._sampled) >= _MOST_SAMPLES:
            self._sampled.clear()
        self._sampled.add(day)
        return True

    def _store(self, batch: Sequence[Placed]) -> Sequence[Verdict]:
        """Store a batch; where the database refuses some of its data, halve it until the event at fault stands alone."""
        try:
            with self._database.raw() as conn:
                return store.write(conn, batch, self._clock())
        except (psycopg.DataError, psycopg.IntegrityError):
            if len(batch) == 1:
                _log.exception("the database refuses an event", extra={"event_id": batch[0].event.id.decode()})
                return [UNSTORABLE]
        half = len(batch) // 2
        return [*self._store(batch[:half]), *self._store(batch[half:])]


def _day(customer: bytes, event: Event) -> tuple[bytes, bytes, int]:
    return customer, event.type, event.time // _DAY_US
