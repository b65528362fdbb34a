"""Taking events in: judged one by one, stored in one transaction, acknowledged when that is durable."""

import logging
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

import psycopg
from opentelemetry import trace

from services.kit.db import Database
from services.kit.exemplars import KEEP
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
_REPEATS_SECONDS: Final = 10.0
# Spares the Python function that a NamedTuple's own constructor is.
_new: Final = tuple.__new__

# A customer, a type and a day in UTC.
_Day = tuple[bytes, bytes, int]

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
        # Events are new but where somebody sends again: then for a while by the statement that looks first.
        self._repeats_until = 0.0
        self._sampled: set[_Day] = set()

    def take(self, events: Sequence[Event], span_id: bytes) -> Sequence[Verdict]:
        """Store events durably and return what became of each.

        Args:
            events: admitted ones, in the order of the request.
            span_id: of the span that takes them in (8 bytes), empty outside a trace.

        Raises:
            psycopg.OperationalError: the database is away, or the commit's outcome is not known. Nothing is
                acknowledged; all of it may be sent again.
        """
        placed, samples = self._placed(events, span_id)
        if samples:
            trace.get_current_span().set_attribute(KEEP, True)
        verdicts: Sequence[Verdict] = ()
        try:
            verdicts = self._combined(placed)
        finally:
            for index, day in samples:
                if not verdicts or verdicts[index] is not ACCEPTED:
                    self._sampled.discard(day)
        self._notifier.notice()
        return verdicts

    def _placed(self, events: Sequence[Event], span_id: bytes) -> tuple[list[Placed], list[tuple[int, _Day]]]:
        """Return events with their customers, and the places of those whose trace is to be kept, with their days.

        That is the first that this process sees of a customer, type and day. Several processes may each keep one; the
        rollup points to the first of them.
        """
        placed: list[Placed] = []
        samples: list[tuple[int, _Day]] = []
        sampled = self._sampled
        for index, (event, (customer, reason)) in enumerate(zip(events, self._catalogue.place(events), strict=True)):
            is_sample = False
            # No function of its own: it is asked for each event.
            if customer and event.trace_id:
                day = (customer, event.type, event.time // _DAY_US)
                if day not in sampled:
                    if len(sampled) >= _MOST_SAMPLES:
                        sampled.clear()
                    sampled.add(day)
                    samples.append((index, day))
                    is_sample = True
            placed.append(_new(Placed, (event, customer, reason, span_id, is_sample)))
        return placed, samples

    def _store(self, batch: Sequence[Placed]) -> Sequence[Verdict]:
        """Store a batch: by the way for new events first, unless some were sent again lately."""
        if time.monotonic() >= self._repeats_until:
            try:
                return self._written(batch, expect_new=True)
            except store.NOT_NEW:
                self._repeats_until = time.monotonic() + _REPEATS_SECONDS
        try:
            return self._written(batch)
        except psycopg.errors.DeadlockDetected:
            # With one that wrote as if all were new: that does not keep to the order of the keys.
            return self._written(batch)

    def _written(self, batch: Sequence[Placed], *, expect_new: bool = False) -> Sequence[Verdict]:
        """Write a batch; where the database refuses some of its data, halve it until the event at fault stands alone."""
        try:
            with self._database.raw() as conn:
                return store.write(conn, batch, self._clock(), expect_new=expect_new)
        except store.NOT_NEW:
            raise
        except (psycopg.DataError, psycopg.IntegrityError):
            if len(batch) == 1:
                event = batch[0].event
                # Its own: the line is written under the first call of the group.
                whose = {"customer_id": event.customer_id or event.customer_key}
                _log.exception("the database refuses an event", extra={"event_id": event.id.decode(), **whose})
                return [UNSTORABLE]
        half = len(batch) // 2
        return [*self._written(batch[:half]), *self._written(batch[half:])]
