"""An event as it is admitted: checked, in the form in which it is stored, with its two digests.

The identity is (customer, source, id), as in CloudEvents 1.0. The content is what the producer says happened: type,
time, quantities and attributes. The trace id and the time of receipt belong to neither, so that a retry under another
trace is a duplicate and no conflict.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import blake2b
from typing import Final, NamedTuple

from services.kit.errors import InvalidArgument
from services.kit.money import MAX_DIGITS, parse_quantity, plain
from services.usage.domain.instant import EARLIEST_US, MICROSECONDS

MAX_TEXT_BYTES: Final = 256
MAX_EVENT_BYTES: Final = 64 * 1024
MAX_ATTRIBUTES: Final = 64
MAX_AHEAD_US: Final = 5 * 60 * MICROSECONDS
DIGEST_BYTES: Final = 16

# Of characters: however they are encoded, they fit.
_SURELY_SHORT: Final = MAX_TEXT_BYTES // 4
_TRACE_DIGITS: Final = 32
_MOST_TEXTS: Final = 4096
_NO_TRACE: Final = bytes(16)
# A copy costs two thirds of a new one.
_EMPTY_DIGEST: Final = blake2b(digest_size=DIGEST_BYTES)


class Rejected(Exception):
    """An event is wrong in itself and is not stored.

    Attributes:
        reason: an UPPER_SNAKE_CASE word for programs.
        field: the path of the field at fault, such as `quantities.bytes`.
        message: for people: the value, the limit and what to do.
    """

    def __init__(self, reason: str, field: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.field = field
        self.message = message


class Event(NamedTuple):
    """An admitted event. Texts are UTF-8, as they are stored; `time` is in microseconds since 1970 (UTC).

    One of `customer_id` and `customer_key` is set. `quantities` and `attributes` are JSON objects, empty when there are
    none; `trace_id` is 16 bytes or empty. `identity` is the digest of source and id, `content` that of the content.
    """

    customer_id: str
    customer_key: str
    id: bytes
    source: bytes
    type: bytes
    time: int
    quantities: bytes
    attributes: bytes
    trace_id: bytes
    identity: bytes
    content: bytes


def identity_digest(source: bytes, id: bytes) -> bytes:  # noqa: A002 - the field's name
    """Return the digest that stands for (source, id) in keys. NUL separates: neither may hold one."""
    digest = _EMPTY_DIGEST.copy()
    digest.update(source + b"\0" + id)
    return digest.digest()


def content_digest(type: bytes, time: int, quantities: bytes, attributes: bytes) -> bytes:  # noqa: A002
    """Return the digest that tells a duplicate from a conflict.

    The customer is left out: digests are compared under one customer's identity only.
    """
    digest = _EMPTY_DIGEST.copy()
    digest.update(b"\0".join((time.to_bytes(8, "big"), type, quantities, attributes)))
    return digest.digest()


class Texts(dict[str, bytes]):
    """What `encoded` returned for the texts that a field had lately: few sources and types recur a lot."""

    def __init__(self, field: str) -> None:
        super().__init__()
        self._field = field

    def __missing__(self, text: str) -> bytes:
        """Check and remember a text.

        Raises:
            Rejected: see `encoded`.
        """
        data = encoded(self._field, text)
        if len(self) >= _MOST_TEXTS:
            self.clear()
        self[text] = data
        return data


def encoded(field: str, text: str) -> bytes:
    """Return a text as UTF-8.

    Raises:
        Rejected: empty, above 256 bytes, or with a NUL.
    """
    data = text.encode()
    if not data:
        raise Rejected("MISSING", field, f"{field} is empty; send 1 to {MAX_TEXT_BYTES} bytes")
    if len(data) > MAX_TEXT_BYTES:
        raise Rejected("TOO_LONG", field, f"{field} has {len(data)} bytes; at most {MAX_TEXT_BYTES} are allowed")
    if 0 in data:
        raise Rejected("NUL", field, f"{field} holds a NUL character; leave it out")
    return data


def quantities_json(quantities: Sequence[tuple[str, str]]) -> bytes:
    """Return quantities as a JSON object of plain numbers, sorted by name: `1.0`, `1` and `1e0` are the same.

    Raises:
        Rejected: a name or number that is none, a negative number, too many digits.
    """
    if not quantities:
        return b""
    if len(quantities) == 1:
        name, text = quantities[0]
        return f"{{{_name(name)}{_number(name, text)}}}".encode()
    return f"{{{','.join(sorted(_name(name) + _number(name, text) for name, text in quantities))}}}".encode()


def check_attributes(attributes: Mapping[str, str]) -> None:
    """Check attributes.

    Raises:
        Rejected: more than 64, or a NUL.
    """
    if len(attributes) > MAX_ATTRIBUTES:
        raise Rejected(
            "TOO_MANY_ATTRIBUTES", "attributes", f"{len(attributes)} attributes; at most {MAX_ATTRIBUTES} are allowed"
        )
    for name, value in attributes.items():
        if "\0" in name or "\0" in value:
            shown = name.replace("\0", "\\0")
            raise Rejected("NUL", f"attributes.{shown}", "holds a NUL character; leave it out")


def check_size(size: int, attributes: int) -> None:
    """Check an event's encoded size.

    Args:
        size: of the whole event, in bytes.
        attributes: bytes of its attributes; the fault is theirs or, with few of them, the quantities'.

    Raises:
        Rejected: above 64 KiB.
    """
    if size > MAX_EVENT_BYTES:
        field = "attributes" if attributes > size // 2 else "quantities"
        raise Rejected(
            "TOO_LARGE",
            field,
            f"the event has {size} bytes; at most {MAX_EVENT_BYTES} (64 KiB) are allowed: send less in {field}",
        )


def parse_trace_id(text: str) -> bytes:
    """Return a W3C trace id's 16 bytes.

    Raises:
        Rejected: not 32 lower-case hex digits, or all zero.
    """
    try:
        data = bytes.fromhex(text) if len(text) == _TRACE_DIGITS and text.islower() | text.isdigit() else b""
    except ValueError:
        data = b""
    if len(data) != len(_NO_TRACE) or data == _NO_TRACE:
        raise Rejected(
            "BAD_TRACE_ID", "trace_id", f"{text[:64]!r} is no W3C trace id: 32 lower-case hex digits, not all zero"
        )
    return data


def check_customer(customer_id: str, customer_key: str) -> None:
    """Check how an event names its customer.

    Raises:
        Rejected: by none or two names, or by one that can be none.
    """
    if customer_id and customer_key:
        raise Rejected("TWO_CUSTOMERS", "customer_key", "customer_id is set as well; send exactly one of them")
    name = customer_id or customer_key
    if not name:
        raise Rejected("NO_CUSTOMER", "customer_id", "neither customer_id nor customer_key is set; send one of them")
    if len(name) > _SURELY_SHORT or "\0" in name:
        encoded("customer_id" if customer_id else "customer_key", name)


def instant(seconds: int, nanos: int, now_us: int) -> int:
    """Return when an event happened, in microseconds since 1970; nanoseconds are cut off.

    Raises:
        Rejected: before the year 2000, more than 5 minutes ahead of `now_us`, or no time at all.
    """
    time = seconds * MICROSECONDS + nanos // 1000
    if not EARLIEST_US <= time <= now_us + MAX_AHEAD_US or not 0 <= nanos < 1_000_000_000:  # noqa: PLR2004 - nanoseconds in a second
        raise _bad_time(time, nanos, now_us)
    return time


def _bad_time(time: int, nanos: int, now_us: int) -> Rejected:
    if not 0 <= nanos < 1_000_000_000:  # noqa: PLR2004 - nanoseconds in a second
        return Rejected("TIME_OUT_OF_RANGE", "time", f"nanos {nanos} are outside 0 to 999999999")
    if time < EARLIEST_US:
        return Rejected("TIME_OUT_OF_RANGE", "time", f"{_shown(time)} is before {_shown(EARLIEST_US)}, the earliest")
    return Rejected(
        "TIME_IN_FUTURE", "time", f"{_shown(time)} is more than 5 minutes ahead of the server's {_shown(now_us)}"
    )


def _shown(time: int) -> str:
    try:
        return datetime.fromtimestamp(time // MICROSECONDS, UTC).isoformat()
    except (ValueError, OverflowError, OSError):
        return f"{time // MICROSECONDS} seconds since 1970"


@lru_cache(maxsize=4096)
def _name(name: str) -> str:
    encoded("quantities", name)
    return f"{json.dumps(name)}:"


def _number(name: str, text: str) -> str:
    # Most are whole numbers written plainly: those need no Decimal.
    if text.isdigit() and text.isascii() and len(text) <= MAX_DIGITS and (text[0] != "0" or text == "0"):
        return text
    try:
        return plain(parse_quantity(text, f"quantities.{name}"))
    except InvalidArgument as error:
        violation = error.violations[0]
        raise Rejected(error.reason, violation.field, violation.description) from None
