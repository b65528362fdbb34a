"""Instants and intervals."""

from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp
from google.type import interval_pb2

from services.billing.domain.period import Period
from services.kit.errors import InvalidArgument


def timestamp(instant: datetime | None) -> Timestamp | None:
    """Encode an instant; None for none."""
    if instant is None:
        return None
    message = Timestamp()
    message.FromDatetime(instant)
    return message


def instant(message: Timestamp, field: str) -> datetime:
    """Decode an instant, cut to microseconds.

    Raises:
        InvalidArgument: outside the years 1 to 9999.
    """
    try:
        return message.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise InvalidArgument.at(field, f"{message.seconds} s is no instant from the year 1 to 9999") from None


def interval(period: Period) -> interval_pb2.Interval:
    """Encode a half-open period."""
    return interval_pb2.Interval(start_time=timestamp(period.start), end_time=timestamp(period.end))
