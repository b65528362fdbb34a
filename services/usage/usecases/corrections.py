"""Amending and cancelling events: one transaction each, by the protocol of ingest (docs/decisions/0011).

1. The transaction takes its id.
2. In later statements: the event, the seal that has it, then the correction's row. Of two corrections of one event the
   later waits there for the earlier.
3. What supersedes the event goes the way of every event (store/ingest.py).
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeVar

import psycopg
import sqlalchemy as sa
from google.protobuf.message import Message
from opentelemetry import trace

from services.kit import telemetry
from services.kit.db import Database
from services.kit.errors import Aborted, InvalidArgument
from services.kit.exemplars import KEEP
from services.kit.idempotency import once
from services.usage.domain.correction import Kind, Reference
from services.usage.domain.event import Event, identity_digest
from services.usage.domain.verdict import UNKNOWN_EVENT_TYPE, UNSTORABLE, Outcome
from services.usage.errors import (
    CustomerNotFound,
    EventCorrected,
    EventNotFound,
    SupersedingEventExists,
    TooOldToCorrect,
    UnknownSupersedingType,
)
from services.usage.metrics import CorrectionMetrics, IngestMetrics
from services.usage.store import corrections, customers, events, ingest, places, wire
from services.usage.store.corrections import Target
from services.usage.store.events import StoredEvent
from services.usage.store.ingest import driver
from services.usage.store.placed import Placed
from services.usage.usecases.catalogue import Catalogue
from services.usage.usecases.notifier import Notifier

# An event whose transaction began behind the correction's is older than the correction's next transaction.
_ATTEMPTS: Final = 3
_METHODS: Final = {Kind.AMEND: "AmendEvent", Kind.CANCEL: "CancelEvent"}

_log = logging.getLogger(__name__)

M = TypeVar("M", bound=Message)


@dataclass(frozen=True)
class Wanted:
    """A correction that is asked for; `superseding` is None for a cancel."""

    customer_id: str
    reference: Reference
    superseding: Event | None
    reason: str

    @property
    def kind(self) -> Kind:
        """What it is to do."""
        return Kind.CANCEL if self.superseding is None else Kind.AMEND

    @property
    def digest(self) -> bytes:
        """The identity of the event that is to be corrected."""
        return identity_digest(self.reference.source.encode(), self.reference.id.encode())


class Corrections:
    """Corrects events."""

    def __init__(
        self,
        database: Database,
        catalogue: Catalogue,
        notifier: Notifier,
        metrics: CorrectionMetrics,
        ingested: IngestMetrics,
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._catalogue = catalogue
        self._notifier = notifier
        self._metrics = metrics
        self._ingested = ingested
        self._clock = clock
        self._tracer = trace.get_tracer("services.usage")

    def correct(
        self,
        wanted: Wanted,
        *,
        request: Message,
        request_id: str,
        encode: Callable[[StoredEvent], M],
        response_type: type[M],
    ) -> M:
        """Correct an event durably and return it as it is then. The same correction again changes nothing.

        Raises:
            CustomerNotFound, EventNotFound: there is none.
            EventCorrected: it was corrected in another way.
            SupersedingEventExists, UnknownSupersedingType, TooOldToCorrect: see there.
            InvalidArgument: the superseding event is the event itself, another customer's, or too old.
            RequestIdReused: the id came with another request before; nothing is corrected.
        """
        if wanted.superseding is not None and wanted.superseding.identity == wanted.digest:
            raise InvalidArgument.at(
                "event.id",
                "is that of the event that it is to supersede; give it an id of its own",
                reason="SAME_EVENT",
            )
        with self._tracer.start_as_current_span(f"{wanted.kind.lower()} event") as span:
            started = time.perf_counter()
            placed = self._place(wanted)
            for attempts in range(1, _ATTEMPTS + 1):
                step = _Step(wanted, placed, self._clock())
                try:
                    response = self._take(step, request, request_id, encode, response_type)
                except _TooEarly:
                    if attempts == _ATTEMPTS:
                        raise
                else:
                    break
            span.set_attributes(
                {
                    "meterscope.corrections": int(step.is_made),
                    "meterscope.correction.attempts": attempts,
                    "meterscope.correction.is_adjustment": step.seal != 0,
                    KEEP: step.is_made,
                }
            )
            if step.is_made:
                self._tell(wanted, step, time.perf_counter() - started)
        return response

    def _take(
        self,
        step: "_Step",
        request: Message,
        request_id: str,
        encode: Callable[[StoredEvent], M],
        response_type: type[M],
    ) -> M:
        try:
            with self._database.transaction() as conn:
                tx = places.writer(conn)
                return once(
                    conn,
                    method=_METHODS[step.wanted.kind],
                    request_id=request_id,
                    request=request,
                    response_type=response_type,
                    act=lambda: encode(step.act(conn, tx)),
                )
        except (sa.exc.DataError, psycopg.DataError) as error:
            _log.exception("the database refuses a superseding event")
            raise InvalidArgument.at("event", UNSTORABLE.message, reason=UNSTORABLE.reason) from error

    def _place(self, wanted: Wanted) -> Placed | None:
        """Find the customer of the superseding event; it is never held: nothing would count meanwhile."""
        if wanted.superseding is None:
            return None
        ((customer, reason),) = self._catalogue.place([wanted.superseding])
        if reason == UNKNOWN_EVENT_TYPE:
            raise UnknownSupersedingType(wanted.superseding.type.decode())
        span = trace.get_current_span().get_span_context()
        span_id = span.span_id.to_bytes(8, "big") if span.is_valid else b""
        return Placed(wanted.superseding, customer, reason, span_id, sampled=bool(wanted.superseding.trace_id))

    def _tell(self, wanted: Wanted, step: "_Step", seconds: float) -> None:
        self._notifier.notice()
        if wanted.superseding is not None:
            self._ingested.took([(Outcome.ACCEPTED, 1)], seconds)
        self._metrics.corrected(wanted.kind, is_adjustment=step.seal != 0)
        _log.info(
            "an event was cancelled" if wanted.superseding is None else "an event was amended",
            extra={
                "event_id": wanted.reference.id,
                "source": wanted.reference.source,
                "customer_id": wanted.customer_id,
                "superseded_by": wanted.superseding.id.decode() if wanted.superseding else "",
                "is_adjustment": step.seal != 0,
            },
        )


class _TooEarly(Aborted):
    """The event's transaction has a higher id than the correction's: the rollup would come to the correction first."""

    def __init__(self) -> None:
        super().__init__("the event was just being stored; send the same request again")


class _Step:
    """What one transaction does; `is_made` says that it made the correction, `seal` what it adjusts (0 for none)."""

    def __init__(self, wanted: Wanted, placed: Placed | None, now: datetime) -> None:
        self.wanted = wanted
        self.is_made = False
        self.seal = 0
        self._placed = placed
        self._now = now

    def act(self, conn: sa.Connection, tx: int) -> StoredEvent:
        """Correct the event and return it, in the transaction of this id: each statement sees every older seal."""
        wanted = self.wanted
        number = customers.number(conn, wanted.customer_id)
        if number is None:
            raise CustomerNotFound(wanted.customer_id)
        if not self._is_made_before(conn, number):
            target = self._target(conn, number, tx)
            self._check_customer(number)
            self.seal = target.seal or corrections.seal_over(conn, number, target.time)
            self.is_made = corrections.insert_once(
                conn,
                target,
                wanted.superseding,
                seal=self.seal,
                reason=wanted.reason,
                context=telemetry.inject(),
                now=self._now,
            )
            if self.is_made:
                self._supersede(conn)
            elif not self._is_made_before(conn, number):
                raise AssertionError("a correction that was in the way is gone: none is ever removed")
        found = events.find(conn, number, wanted.digest)
        if found is None:
            raise EventNotFound(wanted.customer_id, *wanted.reference)
        return found

    def _is_made_before(self, conn: sa.Connection, number: int) -> bool:
        """Say whether just this correction is there already.

        Raises:
            EventCorrected: another one is.
        """
        found = corrections.made(conn, number, self.wanted.digest)
        if found is None:
            return False
        correction = found.correction
        if (correction.kind, correction.superseded_by, found.content) != (self.wanted.kind, *self._superseding()):
            raise EventCorrected(*self.wanted.reference, correction)
        return True

    def _superseding(self) -> tuple[Reference | None, bytes | None]:
        event = self.wanted.superseding
        return (None, None) if event is None else (Reference(event.source.decode(), event.id.decode()), event.content)

    def _target(self, conn: sa.Connection, number: int, tx: int) -> Target:
        wanted = self.wanted
        happened = corrections.key_time(conn, number, wanted.digest)
        if happened is None:
            raise EventNotFound(wanted.customer_id, *wanted.reference)
        floor = places.floor(conn, places.RAW)
        if floor is not None and happened < floor:
            raise TooOldToCorrect(*wanted.reference, happened, floor)
        target = corrections.target(conn, number, wanted.reference, wanted.digest, tx)
        if target is None:
            raise EventNotFound(wanted.customer_id, *wanted.reference)
        if not target.is_older:
            raise _TooEarly
        return target

    def _check_customer(self, number: int) -> None:
        if self._placed is None or self._placed.customer == wire.int8(number):
            return
        event = self._placed.event
        field = "event.customer_id" if event.customer_id else "event.customer_key"
        name = event.customer_id or event.customer_key
        raise InvalidArgument.at(
            field, f"{name!r} is not {self.wanted.customer_id}, whose event is corrected", reason="OTHER_CUSTOMER"
        )

    def _supersede(self, conn: sa.Connection) -> None:
        if self._placed is None:
            return
        (verdict,) = ingest.write(driver(conn), [self._placed], self._now)
        if verdict.outcome is Outcome.REJECTED:
            raise InvalidArgument.at(f"event.{verdict.field}", verdict.message, reason=verdict.reason)
        if verdict.outcome is not Outcome.ACCEPTED:
            event = self._placed.event
            raise SupersedingEventExists(event.source.decode(), event.id.decode())
