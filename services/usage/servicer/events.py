"""EventService."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Final

import grpc
from opentelemetry import trace
from opentelemetry.trace import SpanKind

from meterscope.usage.v1 import event_service_pb2 as pb
from meterscope.usage.v1 import event_service_pb2_grpc
from services.kit import logs, streams, telemetry
from services.kit.errors import FieldViolation, InvalidArgument
from services.kit.interceptors import MAX_REQUEST_ID, transport
from services.kit.slots import Slots
from services.kit.telemetry import current_ids
from services.usage.convert import events as convert
from services.usage.convert import quarantine
from services.usage.convert.fields import text
from services.usage.domain.instant import to_us
from services.usage.domain.verdict import OUTCOME_NAMES, Outcome, Verdict
from services.usage.metrics import STREAM, IngestMetrics
from services.usage.usecases.corrections import Corrections, Wanted
from services.usage.usecases.events import Events
from services.usage.usecases.ingest import MAX_EVENTS, Ingest
from services.usage.usecases.quarantine import Quarantine

# Requests of one stream that are answered at a time: as many as keep the writers busy while answers travel.
_AT_ONCE: Final = 4
_AHEAD: Final = 8
_REQUEST: Final = "meterscope.usage.v1.EventService/StreamEvents request"

_COUNTS: Final = {outcome: f"meterscope.events.{name}" for outcome, name in OUTCOME_NAMES.items()}

# What was stored before counts as well.
_COUNTING: Final = (pb.OUTCOME_ACCEPTED, pb.OUTCOME_DUPLICATE)

_tracer = trace.get_tracer("services.usage")
_log = logging.getLogger(__name__)


class EventServicer(event_service_pb2_grpc.EventServiceServicer):
    """Takes events in and shows them."""

    def __init__(
        self,
        ingest: Ingest,
        events: Events,
        quarantine: Quarantine,
        corrections: Corrections,
        metrics: IngestMetrics,
        clock: Callable[[], datetime],
        *,
        most_streams: int,
    ) -> None:
        self._ingest = ingest
        self._events = events
        self._quarantine = quarantine
        self._corrections = corrections
        self._metrics = metrics
        self._clock = clock
        self._streams = Slots(
            most_streams,
            "streams are open at this server process already, as many as it takes (METERSCOPE_USAGE_STREAMS); come again"
            " when one has ended, or send by IngestEvents",
            reason="TOO_MANY_STREAMS",
        )

    def IngestEvents(self, request: pb.IngestEventsRequest, context: grpc.ServicerContext) -> pb.IngestEventsResponse:
        """Store a batch."""
        _check_size(len(request.events))
        return self._take(request.events, pb.IngestEventsResponse())

    def StreamEvents(
        self, request_iterator: Iterator[pb.StreamEventsRequest], context: grpc.ServicerContext
    ) -> Iterator[pb.StreamEventsResponse]:
        """Store batch after batch."""
        with self._streams.held():
            transport.set(STREAM)
            yield from streams.answered(request_iterator, self._answer, at_once=_AT_ONCE, ahead=_AHEAD)

    def GetEvent(self, request: pb.GetEventRequest, context: grpc.ServicerContext) -> pb.Event:
        """Show an event."""
        customer_id = text(request.customer_id, "customer_id")
        found = self._events.get(customer_id, text(request.source, "source"), text(request.event_id, "event_id"))
        return convert.stored_event(found)

    def ListEvents(self, request: pb.ListEventsRequest, context: grpc.ServicerContext) -> pb.ListEventsResponse:
        """Show a customer's events."""
        found, token = self._events.page(
            text(request.customer_id, "customer_id"), convert.chosen(request), request.page_size, request.page_token
        )
        return pb.ListEventsResponse(events=map(convert.stored_event, found), next_page_token=token)

    def AmendEvent(self, request: pb.AmendEventRequest, context: grpc.ServicerContext) -> pb.Event:
        """Let another event count instead of one."""
        trace_id, _ = current_ids()
        wanted = convert.amendment(request, trace_id, to_us(self._clock()))
        return self._correct(wanted, request)

    def CancelEvent(self, request: pb.CancelEventRequest, context: grpc.ServicerContext) -> pb.Event:
        """Let an event count no more."""
        return self._correct(convert.cancellation(request), request)

    def ListQuarantinedEvents(
        self, request: pb.ListQuarantinedEventsRequest, context: grpc.ServicerContext
    ) -> pb.ListQuarantinedEventsResponse:
        """Show held events."""
        chosen = quarantine.chosen(request.customer_key, request.reason)
        return quarantine.page(self._quarantine.page(chosen, request.page_size, request.page_token))

    def ReplayQuarantinedEvents(
        self, request: pb.ReplayQuarantinedEventsRequest, context: grpc.ServicerContext
    ) -> pb.ReplayQuarantinedEventsResponse:
        """Send held events through the ordinary path."""
        return self._quarantine.replay_once(
            quarantine.chosen(request.customer_key, request.reason),
            request,
            request.request_id,
            quarantine.replayed,
            pb.ReplayQuarantinedEventsResponse,
        )

    def _correct(self, wanted: Wanted, request: pb.AmendEventRequest | pb.CancelEventRequest) -> pb.Event:
        return self._corrections.correct(
            wanted,
            request=request,
            request_id=request.request_id,
            encode=convert.stored_event,
            response_type=pb.Event,
        )

    def _answer(self, position: int, request: pb.StreamEventsRequest) -> pb.StreamEventsResponse:
        """Store a batch of a stream: under a span of its own, since that of the stream may go on for days."""
        _check_size(len(request.events), position)
        parent = telemetry.extract({"traceparent": request.traceparent}) if request.traceparent else None
        token = logs.request_id.set(request.request_id[:MAX_REQUEST_ID] or logs.request_id.get())
        try:
            with _tracer.start_as_current_span(_REQUEST, parent, SpanKind.SERVER, {"meterscope.position": position}):
                response = pb.StreamEventsResponse(request_id=request.request_id, position=position)
                return self._take(request.events, response)
        finally:
            logs.request_id.reset(token)

    def _take(self, events: Sequence[pb.Event], response: convert.Response) -> convert.Response:
        """Store a batch and fill in what became of it: the one way for whatever call it came by."""
        started = time.perf_counter()
        response = convert.answered(events, self._judge(events), response)
        counts = [
            (Outcome.ACCEPTED, response.accepted),
            (Outcome.DUPLICATE, response.duplicate),
            (Outcome.CONFLICT, response.conflict),
            (Outcome.QUARANTINED, response.quarantined),
            (Outcome.REJECTED, response.rejected),
        ]
        span = trace.get_current_span()
        if span.is_recording():
            # Each attribute is redacted and sent: those that say nothing would cost as much as the others.
            span.set_attributes({_COUNTS[each]: number for each, number in counts if number})
        if response.conflict or response.quarantined or response.rejected:
            _tell(response)
        self._metrics.took(counts, time.perf_counter() - started)
        return response

    def _judge(self, messages: Sequence[pb.Event]) -> list[Verdict]:
        """Return a verdict for each event: those that are wrong in themselves never reach the database."""
        trace_id, span_id = current_ids()
        now_us = to_us(self._clock())
        events, refused = convert.admitted(messages, trace_id, now_us)
        verdicts = list(self._ingest.take(events, span_id)) if events else []
        for place, verdict in refused:
            verdicts.insert(place, verdict)
        return verdicts


def _tell(response: pb.IngestEventsResponse | pb.StreamEventsResponse) -> None:
    """Leave a log line of the call, one for all of its events: whoever follows its trace finds why they do not count."""
    numbers = {"conflict": response.conflict, "quarantined": response.quarantined, "rejected": response.rejected}
    reasons = {each.reason for each in response.results if each.outcome not in _COUNTING}
    _log.info(
        "events do not count: %s",
        ", ".join(f"{number} {name}" for name, number in numbers.items() if number),
        extra={**numbers, "events": len(response.results), "reasons": sorted(reasons)},
    )


def _check_size(count: int, position: int | None = None) -> None:
    """Check how many events a request has.

    Raises:
        InvalidArgument: none, or more than 10,000; with the request's position in its stream, if it has one.
    """
    if 0 < count <= MAX_EVENTS:
        return
    fault = f"{count} events; send 1 to {MAX_EVENTS:,} in a {'call' if position is None else 'request'}"
    if position is None:
        raise InvalidArgument.at("events", fault, reason="BATCH_SIZE")
    raise InvalidArgument(
        f"request {position} of the stream, from 0: events: {fault}",
        reason="BATCH_SIZE",
        metadata={"position": str(position)},
        violations=[FieldViolation("events", fault)],
    )
