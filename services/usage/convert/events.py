"""Events. On the way in each field is touched once: that is most of what a batch costs here."""

from collections.abc import Iterable, Sequence
from typing import Final, TypeVar

import orjson

from meterscope.usage.v1 import event_service_pb2 as pb
from services.kit.errors import InvalidArgument
from services.usage.convert.fields import instant, text, timestamp
from services.usage.domain.correction import EventState, Reference
from services.usage.domain.event import (
    MAX_ATTRIBUTES,
    Event,
    Rejected,
    Texts,
    check_attributes,
    check_customer,
    check_size,
    content_digest,
    encoded,
    identity_digest,
    parse_trace_id,
    quantities_json,
)
from services.usage.domain.event import instant as event_time
from services.usage.domain.verdict import ACCEPTED, Outcome, Verdict, rejected
from services.usage.store.events import Filter, StoredEvent
from services.usage.usecases.corrections import Wanted

# With attributes of this many bytes and 64 quantities, the rest within its limits, an event has less than 64 KiB.
_SURELY_SMALL: Final = 4096
_SOURCES: Final = Texts("source")
_TYPES: Final = Texts("type")
_OUTCOMES: Final = {outcome: pb.Outcome.ValueType(outcome) for outcome in Outcome}
_STATES: Final = {
    pb.EVENT_STATE_UNSPECIFIED: None,
    pb.EVENT_STATE_ACTIVE: EventState.ACTIVE,
    pb.EVENT_STATE_AMENDED: EventState.AMENDED,
    pb.EVENT_STATE_CANCELLED: EventState.CANCELLED,
}
_STATE_VALUES: Final = {state: value for value, state in _STATES.items() if state}
_new: Final = tuple.__new__

Response = TypeVar("Response", pb.IngestEventsResponse, pb.StreamEventsResponse)


def admitted(
    messages: Iterable[pb.Event], trace_id: bytes, now_us: int
) -> tuple[list[Event], list[tuple[int, Verdict]]]:
    """Decode and check events; return those that may be stored, and the places and verdicts of those that never will.

    Args:
        messages: as they were sent.
        trace_id: of the call (16 bytes or empty), for events that name none.
        now_us: the server's clock in microseconds.
    """
    events: list[Event] = []
    refused: list[tuple[int, Verdict]] = []
    for place, message in enumerate(messages):
        try:
            id_bytes = encoded("id", message.id)
            source = _SOURCES[message.source]
            type_bytes = _TYPES[message.type]
            customer_id, customer_key = message.customer_id, message.customer_key
            check_customer(customer_id, customer_key)
            time = _time(message, now_us)
            numbers = message.quantities
            quantities = quantities_json([(name, numbers[name].value) for name in numbers])
            attributes = _attributes(message)
            if len(attributes) > _SURELY_SMALL or len(numbers) > MAX_ATTRIBUTES:
                check_size(message.ByteSize(), len(attributes))
            own_trace = message.trace_id
            # tuple.__new__ spares the Python function that a NamedTuple's own constructor is.
            event = _new(
                Event,
                (
                    customer_id,
                    customer_key,
                    id_bytes,
                    source,
                    type_bytes,
                    time,
                    quantities,
                    attributes,
                    parse_trace_id(own_trace) if own_trace else trace_id,
                    identity_digest(source, id_bytes),
                    content_digest(type_bytes, time, quantities, attributes),
                ),
            )
        except Rejected as error:
            refused.append((place, rejected(error)))
        else:
            events.append(event)
    return events, refused


def answered(events: Sequence[pb.Event], verdicts: Sequence[Verdict], response: Response) -> Response:
    """Write what became of the events of a request into its response, and return that."""
    add = response.results.add
    counts = [0] * (len(Outcome) + 1)
    for index, (message, verdict) in enumerate(zip(events, verdicts, strict=True)):
        result = add()
        result.index = index
        result.id = message.id
        outcome = verdict.outcome
        result.outcome = _OUTCOMES[outcome]
        counts[outcome] += 1
        if verdict is not ACCEPTED:
            result.reason, result.field, result.message = verdict.reason, verdict.field, verdict.message
    response.accepted = counts[Outcome.ACCEPTED]
    response.duplicate = counts[Outcome.DUPLICATE]
    response.conflict = counts[Outcome.CONFLICT]
    response.quarantined = counts[Outcome.QUARANTINED]
    response.rejected = counts[Outcome.REJECTED]
    return response


def chosen(request: pb.ListEventsRequest) -> Filter:
    """Decode which events are meant.

    Raises:
        InvalidArgument: names the field.
    """
    if request.state not in _STATES:
        raise InvalidArgument.at("state", f"{request.state} is none; use ACTIVE, AMENDED or CANCELLED")
    return Filter(
        start=instant(request.start_time, "start_time") if request.HasField("start_time") else None,
        end=instant(request.end_time, "end_time") if request.HasField("end_time") else None,
        type=text(request.type, "type", optional=True),
        source=text(request.source, "source", optional=True),
        state=_STATES[request.state],
        meter=text(request.meter, "meter", optional=True),
    )


def amendment(request: pb.AmendEventRequest, trace_id: bytes, now_us: int) -> Wanted:
    """Decode which event is to be corrected, by what.

    Args:
        request: as it was sent. Its event is the named customer's if it names none.
        trace_id: of the call (16 bytes or empty), for an event that names none.
        now_us: the server's clock in microseconds.

    Raises:
        InvalidArgument: names the field.
    """
    customer_id = text(request.customer_id, "customer_id")
    reference = Reference(text(request.source, "source"), text(request.event_id, "event_id"))
    if not request.HasField("event"):
        raise InvalidArgument.at("event", "is not set; send the event that counts instead", reason="MISSING")
    message = pb.Event()
    message.CopyFrom(request.event)
    if not message.customer_id and not message.customer_key:
        message.customer_id = customer_id
    events, refused = admitted([message], trace_id, now_us)
    for _, verdict in refused:
        raise InvalidArgument.at(f"event.{verdict.field}", verdict.message, reason=verdict.reason)
    return Wanted(customer_id, reference, events[0], text(request.reason, "reason", optional=True))


def cancellation(request: pb.CancelEventRequest) -> Wanted:
    """Decode which event is to be cancelled.

    Raises:
        InvalidArgument: names the field.
    """
    reference = Reference(text(request.source, "source"), text(request.event_id, "event_id"))
    reason = text(request.reason, "reason", optional=True)
    return Wanted(text(request.customer_id, "customer_id"), reference, None, reason)


def stored_event(stored: StoredEvent) -> pb.Event:
    """Encode an event as it is stored; `held_event` is for one that is not in the tables yet."""
    message = held_event(stored)
    message.state = pb.EVENT_STATE_ACTIVE
    correction = stored.correction
    if correction is not None:
        message.state = _STATE_VALUES[correction.state]
        message.correction_reason = correction.reason
        message.correction_time.CopyFrom(timestamp(correction.time))
        if correction.superseded_by is not None:
            message.superseded_by.CopyFrom(_reference(correction.superseded_by))
    if stored.supersedes is not None:
        message.supersedes.CopyFrom(_reference(stored.supersedes))
    return message


def held_event(stored: StoredEvent) -> pb.Event:
    """Encode what was sent of an event."""
    message = pb.Event(
        id=stored.id,
        source=stored.source,
        type=stored.type,
        customer_id=stored.customer_id,
        customer_key=stored.customer_key,
        time=timestamp(stored.time),
        attributes=orjson.loads(stored.attributes) if stored.attributes else {},
        trace_id=stored.trace_id,
    )
    for name, number in stored.quantities.items():
        message.quantities[name].value = number
    return message


def _reference(reference: Reference) -> pb.EventReference:
    return pb.EventReference(id=reference.id, source=reference.source)


def _time(message: pb.Event, now_us: int) -> int:
    time = message.time
    seconds = time.seconds
    if not seconds and not message.HasField("time"):
        raise Rejected("MISSING", "time", "time is not set; send an instant such as 2025-11-01T00:00:00Z")
    return event_time(seconds, time.nanos, now_us)


def _attributes(message: pb.Event) -> bytes:
    """Return the attributes as JSON with sorted keys, empty without any."""
    found = message.attributes
    if not found:
        return b""
    # Twice as fast as dict(found).
    attributes = {name: found[name] for name in found}
    # Copied, because orjson's result is a shrunken buffer of 1 KiB: to keep a thousand of those costs malloc 2 µs each.
    document = b"%b" % orjson.dumps(attributes, option=orjson.OPT_SORT_KEYS)
    # A NUL would be written as an escape.
    if b"\\" in document or len(attributes) > MAX_ATTRIBUTES:
        check_attributes(attributes)
    return document
