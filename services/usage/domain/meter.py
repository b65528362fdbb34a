"""A meter: how the events of one type become a quantity."""

import re
from dataclasses import dataclass
from datetime import datetime
from decimal import Context, Decimal
from enum import StrEnum
from typing import Final

from services.kit.errors import InvalidArgument
from services.usage.domain.event import MAX_TEXT_BYTES

_ID: Final = re.compile(r"[a-z][a-z0-9_.-]{0,62}")
_MAX_UNIT_BYTES: Final = 64
# The default context would round sums to 28 digits.
_EXACT: Final = Context(prec=100)


class Aggregation(StrEnum):
    """How a meter adds events up."""

    COUNT = "COUNT"
    SUM = "SUM"


@dataclass(frozen=True)
class Meter:
    """A meter. `quantity` names what is added up and is empty for COUNT; an event without it counts as 0."""

    id: str
    event_type: str
    aggregation: Aggregation
    quantity: str = ""
    unit: str = ""
    create_time: datetime | None = None

    def __post_init__(self) -> None:
        """Check.

        Raises:
            InvalidArgument: names the field.
        """
        check_meter_id(self.id, "meter.id")
        _check_text(self.event_type, "meter.event_type", MAX_TEXT_BYTES)
        if self.aggregation is Aggregation.SUM:
            _check_text(self.quantity, "meter.quantity", MAX_TEXT_BYTES)
        elif self.quantity:
            raise InvalidArgument.at("meter.quantity", f"COUNT adds up no quantity; leave {self.quantity[:80]!r} out")
        if self.unit:
            _check_text(self.unit, "meter.unit", _MAX_UNIT_BYTES)

    def same_definition(self, other: "Meter") -> bool:
        """Say whether both count the same in the same way."""
        return (self.id, self.event_type, self.aggregation, self.quantity, self.unit) == (
            other.id,
            other.event_type,
            other.aggregation,
            other.quantity,
            other.unit,
        )


@dataclass(frozen=True)
class State:
    """What a meter knows of some events. States of disjoint sets of events merge by adding."""

    count: int
    sum: Decimal

    @classmethod
    def empty(cls) -> "State":
        """Return what is known of no events."""
        return cls(0, Decimal(0))

    def __add__(self, other: "State") -> "State":
        return State(self.count + other.count, _EXACT.add(self.sum, other.sum))

    def value(self, aggregation: Aggregation) -> Decimal:
        """Return the meter's value."""
        return Decimal(self.count) if aggregation is Aggregation.COUNT else self.sum


def check_meter_id(text: str, field: str) -> None:
    """Check a meter's id.

    Raises:
        InvalidArgument: a lower-case letter, then at most 62 of a-z, 0-9, `_`, `-`, `.` are allowed.
    """
    if not _ID.fullmatch(text):
        raise InvalidArgument.at(
            field, f"{text[:80]!r} is no meter id: a lower-case letter, then at most 62 of a-z, 0-9, _, -, ."
        )


def _check_text(text: str, field: str, limit: int) -> None:
    size = len(text.encode())
    if not 0 < size <= limit or "\0" in text:
        raise InvalidArgument.at(field, f"has {size} bytes; send 1 to {limit}, without NUL")
