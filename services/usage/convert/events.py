"""Events. On the way in each field is touched once: that is most of what a batch costs here."""

from collections.abc import Sequence
from typing import Final

import orjson

from meterscope.usage.v1 import event_service_pb2 as pb
from services.usage.convert.fields import instant, text, timestamp
from services.usage.domain.event import (
    MAX_ATTRIBUTES,
    Event,
    Rejected,
    admit,
    check_attributes,
    check_size,
    parse_trace_id,
)
from services.usage.domain.verdict import ACCEPTED, Outcome, Verdict
from services.usage.store.events import Filter, StoredEvent

# With attributes of this many bytes and 64 quantities, the rest within its limits, an event has less than 64 KiB.
_SURELY_SMALL: Final = 4096


def admitted(message: pb.Event, trace_id: bytes, now_us: int) -> Event:
    """Decode and check an event.

    Args:
        message: as it was sent.
        trace_id: of the call (16 bytes or empty), for events that name none.
        now_us: the server's clock in microseconds.

    Raises:
        Rejected: names what is wrong.
    """
    if not message.HasField("time"):
        raise Rejected("MISSING", "time", "time is not set; send an instant such as 2025-11-01T00:00:00Z")
    time = message.time
    numbers = message.quantities
    own_trace = message.trace_id
    attributes = _attributes(message)
    if len(attributes) > _SURELY_SMALL or len(numbers) > MAX_ATTRIBUTES:
        check_size(message.ByteSize(), len(attributes))
    return admit(
        customer_id=message.customer_id,
        customer_key=message.customer_key,
        id=message.id,
        source=message.source,
        type=message.type,
        seconds=time.seconds,
        nanos=time.nanos,
        quantities=[(name, numbers[name].value) for name in numbers],
        attributes=attributes,
        trace_id=parse_trace_id(own_trace) if own_trace else trace_id,
        now_us=now_us,
    )


def ingest_response(events: Sequence[pb.Event], verdicts: Sequence[Verdict]) -> pb.IngestEventsResponse:
    """Encode what became of the events of a request."""
    response = pb.IngestEventsResponse()
    add = response.results.add
    counts = [0] * (len(Outcome) + 1)
    for index, (message, verdict) in enumerate(zip(events, verdicts, strict=True)):
        outcome = verdict.outcome
        counts[outcome] += 1
        if verdict is ACCEPTED:
            add(index=index, id=message.id, outcome=pb.OUTCOME_ACCEPTED)
        else:
            add(
                index=index,
                id=message.id,
                outcome=pb.Outcome.ValueType(outcome),
                reason=verdict.reason,
                field=verdict.field,
                message=verdict.message,
            )
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
    return Filter(
        start=instant(request.start_time, "start_time") if request.HasField("start_time") else None,
        end=instant(request.end_time, "end_time") if request.HasField("end_time") else None,
        type=text(request.type, "type", optional=True),
        source=text(request.source, "source", optional=True),
    )


def stored_event(stored: StoredEvent) -> pb.Event:
    """Encode an event as it is stored."""
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


def _attributes(message: pb.Event) -> bytes:
    """Return the attributes as JSON with sorted keys, empty without any."""
    found = message.attributes
    if not found:
        return b""
    # Twice as fast as dict(found).
    attributes = {name: found[name] for name in found}
    # Copied, because orjson's result is a shrunken buffer of 1 KiB: to keep a thousand of those costs malloc 2 µs each.
    encoded = b"%b" % orjson.dumps(attributes, option=orjson.OPT_SORT_KEYS)
    if len(attributes) > MAX_ATTRIBUTES or b"\\u0000" in encoded:
        check_attributes(attributes)
    return encoded
