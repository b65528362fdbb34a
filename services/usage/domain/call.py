"""A telephone call: as it was sent, and completed with what its numbers say.

A call is stored as an event of type `call.record`, at its start.
"""

import re
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from typing import Final

from services.kit.errors import InvalidArgument
from services.kit.money import parse_quantity, plain
from services.usage.domain.event import Rejected, encoded

EVENT_TYPE: Final = "call.record"
DEFAULT_SOURCE: Final = "cdr"
TOLL_FREE: Final = "toll_free"
EXTENSION: Final = "extension"
MOST_SECONDS: Final = 366 * 86_400

_CLOCK: Final = re.compile(r"(?:(\d{1,4}):)?(\d{1,3}):(\d\d(?:\.\d{1,9})?)", re.ASCII)
_ZERO: Final = Decimal(0)


class CallType(Enum):
    """Which way a call went."""

    INBOUND = "inbound"
    OUTBOUND = "outbound"
    INTERNAL = "internal"
    TOLL_FREE = "toll_free"


class Disposition(Enum):
    """How a call ended."""

    ANSWERED = "answered"
    NO_ANSWER = "no_answer"
    BUSY = "busy"
    FAILED = "failed"
    CONGESTION = "congestion"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Number:
    """A telephone number.

    Attributes:
        text: E.164 such as `+442079460018`, or an extension's digits.
        country: ISO 3166-1 alpha-2, `001` for global services; empty for an extension.
        prefix: country calling code and national destination code, such as `+4420`; empty for an extension.
        kind: such as `mobile`; `extension` for those.
        is_own: whether it is one of the customer's: an extension, or within its own prefixes.
    """

    text: str
    country: str
    prefix: str
    kind: str
    is_own: bool


@dataclass(frozen=True, slots=True)
class CallRecord:
    """A call as it was sent: what is empty or None was not.

    `start`, `answer` and `end` are seconds and nanoseconds since 1970. `is_answered` says whether there was an answer,
    where a file has a column for it that is filled only then.
    """

    id: str
    source: str
    customer_id: str
    customer_key: str
    caller: Number | None
    callee: Number
    call_type: CallType | None
    start: tuple[int, int] | None
    duration: Decimal | None
    billable: Decimal | None
    disposition: Disposition | None
    trunk: str
    trace_id: str = ""
    is_answered: bool | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """A call with nothing left open."""

    record: CallRecord
    call_type: CallType
    disposition: Disposition
    duration: Decimal
    billable: Decimal

    def quantities(self) -> dict[str, str]:
        """Return what meters add up."""
        return {"calls": "1", "duration_seconds": plain(self.duration), "billable_seconds": plain(self.billable)}

    def attributes(self) -> dict[str, str]:
        """Return what meters filter and group by; what is not known is left out."""
        callee, caller = self.record.callee, self.record.caller
        found = {
            "callee": callee.text,
            "caller": "" if caller is None else caller.text,
            "call_type": self.call_type.value,
            "country": callee.country,
            "destination_prefix": callee.prefix,
            "disposition": self.disposition.value,
            "number_type": callee.kind,
            "trunk": self.record.trunk,
        }
        return {name: value for name, value in found.items() if value}


def completed(record: CallRecord) -> Call:
    """Derive what was not sent: the type from the numbers, the disposition from the seconds, the seconds from it."""
    disposition = record.disposition or _ended(record)
    duration = record.duration if record.duration is not None else record.billable or _ZERO
    billable = record.billable
    if billable is None:
        billable = duration if disposition is Disposition.ANSWERED else _ZERO
    return Call(record, record.call_type or _went(record), disposition, duration, billable)


def seconds(text: str, field: str) -> Decimal:
    """Return a number of seconds, written as such or as `[hours:]minutes:seconds`.

    Raises:
        Rejected: neither, negative, or above 366 days.
    """
    clock = _CLOCK.fullmatch(text)
    try:
        if clock is None:
            found = parse_quantity(text, field)
        else:
            found = int(clock[1] or 0) * 3600 + int(clock[2]) * 60 + Decimal(clock[3])
    except InvalidArgument as error:
        violation = error.violations[0]
        raise Rejected("BAD_DURATION", field, violation.description) from None
    if found > MOST_SECONDS:
        raise Rejected("BAD_DURATION", field, f"{text[:64]} is more than {MOST_SECONDS} seconds (366 days)")
    return found


def trunk(text: str) -> str:
    """Return a trunk's name, empty if it is not known.

    Raises:
        Rejected: above 256 bytes, or with a NUL.
    """
    if text:
        encoded("trunk", text)
    return text


def _went(record: CallRecord) -> CallType:
    caller, callee = record.caller, record.callee
    if callee.kind == TOLL_FREE:
        return CallType.TOLL_FREE
    if not callee.is_own:
        return CallType.OUTBOUND
    return CallType.INTERNAL if caller is not None and caller.is_own else CallType.INBOUND


def _ended(record: CallRecord) -> Disposition:
    if record.is_answered is not None:
        return Disposition.ANSWERED if record.is_answered else Disposition.NO_ANSWER
    counted = record.duration if record.billable is None else record.billable
    return Disposition.ANSWERED if counted else Disposition.NO_ANSWER
