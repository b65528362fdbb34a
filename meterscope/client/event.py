"""A usage event as a program states it, and what became of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from typing import Final, NamedTuple

import uuid_utils
from google.type.decimal_pb2 import Decimal as DecimalMessage
from opentelemetry.trace import SpanContext

from meterscope.usage.v1 import event_service_pb2 as pb

Quantity = Decimal | int | str

_FLOAT_REFUSED: Final = "floats cannot hold most decimal fractions; pass a Decimal, an int or a str"


class Outcome(Enum):
    """What became of an event."""

    ACCEPTED = pb.OUTCOME_ACCEPTED
    """Stored durably; it counts once."""
    DUPLICATE = pb.OUTCOME_DUPLICATE
    """Stored before with the same content; it goes on counting once."""
    CONFLICT = pb.OUTCOME_CONFLICT
    """Its identity is stored with other content; this one is not stored."""
    QUARANTINED = pb.OUTCOME_QUARANTINED
    """Held durably until its customer or event type is known."""
    REJECTED = pb.OUTCOME_REJECTED
    """Not stored; `reason`, `field` and `message` of the result say why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """One thing that happened and may cost money. Its identity is (customer, source, id), as in CloudEvents 1.0.

    The id is made here, once, so that every retry carries the same one.

    Attributes:
        type: what happened, such as `http.request`; meters select events by it. 1 to 256 bytes.
        customer_id: the customer as `cus_…`. Exactly one of `customer_id` and `customer_key` is given.
        customer_key: the customer by an external key that billing knows. 1 to 256 bytes.
        source: where it happened, such as `accesslog/web-1`; the client's own when empty. 1 to 256 bytes.
        id: unique per source, 1 to 256 bytes; a UUIDv7 when not given.
        time: when it happened, with a time zone, cut to microseconds; now when not given.
        quantities: amounts that meters add up, by name: not negative, at most 28 digits of which 12 behind the point.
        attributes: anything else that meters filter or group by, at most 64.
        trace_id: W3C trace id, 32 lower-case hex digits; that of the current trace when empty.

    Raises:
        TypeError: a quantity is a float, or something is of another type than said here.
        ValueError: the time has no zone, a Decimal is not finite, or not exactly one customer is named.
    """

    type: str
    customer_id: str = ""
    customer_key: str = ""
    source: str = ""
    id: str = field(default_factory=lambda: str(uuid_utils.uuid7()))
    time: datetime = field(default_factory=lambda: datetime.now(UTC))
    quantities: Mapping[str, Quantity] = field(default_factory=dict)
    attributes: Mapping[str, str] = field(default_factory=dict)
    trace_id: str = ""

    def __post_init__(self) -> None:
        if bool(self.customer_id) == bool(self.customer_key):
            raise ValueError("give exactly one of customer_id and customer_key")
        if self.time.tzinfo is None:
            raise ValueError(f"time {self.time.isoformat()} has no time zone; pass an aware datetime, such as in UTC")
        for name, quantity in self.quantities.items():
            text_of(f"quantities[{name!r}]", quantity)
        for name, value in self.attributes.items():
            if not isinstance(value, str):
                raise TypeError(f"attributes[{name!r}] is {value!r}, a {type(value).__name__}; pass a str")


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one event.

    Attributes:
        event: the event.
        outcome: what became of it.
        reason: why, for machines, such as `UNKNOWN_CUSTOMER`; empty when accepted.
        field: the path of the field at fault, such as `quantities.bytes`; empty when accepted.
        message: why, for people; empty when accepted.
    """

    event: Event
    outcome: Outcome
    reason: str = ""
    field: str = ""
    message: str = ""


class Encoded(NamedTuple):
    """An event on its way: what goes over the wire, its size there in bytes, and the span that was current."""

    event: Event
    message: pb.Event
    size: int
    link: SpanContext | None


def encode(event: Event, *, source: str, link: SpanContext | None = None) -> Encoded:
    """Encode an event; `source` and the trace of `link` stand in where the event has none of its own.

    Raises:
        ValueError: neither the event nor the client names a source.
    """
    if not (event.source or source):
        raise ValueError(f"event {event.id} names no source and the client has no default one")
    trace_id = event.trace_id or (f"{link.trace_id:032x}" if link else "")
    message = pb.Event(
        id=event.id,
        source=event.source or source,
        type=event.type,
        customer_id=event.customer_id,
        customer_key=event.customer_key,
        attributes=event.attributes,
        trace_id=trace_id,
        quantities={name: DecimalMessage(value=text_of(name, quantity)) for name, quantity in event.quantities.items()},
    )
    message.time.FromDatetime(event.time)
    return Encoded(event, message, message.ByteSize(), link)


def decode(message: pb.Event) -> Encoded:
    """Return an event that was encoded before, as it lies in a spool."""
    event = Event(
        type=message.type,
        customer_id=message.customer_id,
        customer_key=message.customer_key,
        source=message.source,
        id=message.id,
        time=message.time.ToDatetime(UTC),
        quantities={name: quantity.value for name, quantity in message.quantities.items()},
        attributes=dict(message.attributes),
        trace_id=message.trace_id,
    )
    return Encoded(event, message, message.ByteSize(), None)


def text_of(name: str, quantity: object) -> str:
    """Return a quantity as it travels. `name` is said in errors.

    Raises:
        TypeError: a float, or of another type than `Quantity`.
        ValueError: a Decimal that is not finite.
    """
    if isinstance(quantity, bool) or not isinstance(quantity, Decimal | int | str):
        hint = _FLOAT_REFUSED if isinstance(quantity, float) else "pass a Decimal, an int or a str"
        raise TypeError(f"{name} is {quantity!r}, a {type(quantity).__name__}: {hint}")
    if isinstance(quantity, Decimal) and not quantity.is_finite():
        raise ValueError(f"{name} is {quantity}, which is no amount")
    return f"{quantity:f}" if isinstance(quantity, Decimal) else str(quantity)
