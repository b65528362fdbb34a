"""Fields that several messages have."""

from collections.abc import Sequence
from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp

from services.kit.errors import InvalidArgument
from services.usage.domain.event import MAX_TEXT_BYTES
from services.usage.domain.instant import EARLIEST, LATEST, MICROSECONDS, from_us, to_us


def text(value: str, field: str, *, optional: bool = False) -> str:
    """Return a text that may go to the database.

    Raises:
        InvalidArgument: above 256 bytes, with a NUL, or empty and not optional.
    """
    size = len(value.encode())
    if size == 0 and not optional:
        raise InvalidArgument.at(field, f"is empty; send 1 to {MAX_TEXT_BYTES} bytes", reason="MISSING")
    if size > MAX_TEXT_BYTES:
        raise InvalidArgument.at(field, f"has {size} bytes; at most {MAX_TEXT_BYTES} are allowed", reason="TOO_LONG")
    if "\0" in value:
        raise InvalidArgument.at(field, "holds a NUL character; leave it out", reason="NUL")
    return value


def texts(values: Sequence[str], field: str) -> tuple[str, ...]:
    """Return texts; see `text`."""
    return tuple(text(value, f"{field}[{index}]") for index, value in enumerate(values))


def instant(message: Timestamp, field: str, *, given: bool = True) -> datetime:
    """Return an instant, cut to microseconds.

    Args:
        message: the field.
        field: its path.
        given: whether the field is set.

    Raises:
        InvalidArgument: not set, or outside the years 2000 to 2199.
    """
    if not given:
        raise InvalidArgument.at(field, "is not set; send an instant such as 2025-11-01T00:00:00Z", reason="MISSING")
    time = message.seconds * MICROSECONDS + message.nanos // 1000
    if not to_us(EARLIEST) <= time < to_us(LATEST) or not 0 <= message.nanos < 1_000_000_000:  # noqa: PLR2004 - nanoseconds in a second
        raise InvalidArgument.at(
            field,
            f"{message.seconds} seconds and {message.nanos} nanos are outside the years 2000 to 2199",
            reason="TIME_OUT_OF_RANGE",
        )
    return from_us(time)


def timestamp(value: datetime) -> Timestamp:
    """Return an instant as a message."""
    seconds, rest = divmod(to_us(value), MICROSECONDS)
    return Timestamp(seconds=seconds, nanos=rest * 1000)
