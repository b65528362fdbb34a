"""Limits and reservations as a program asks for them."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final, NamedTuple

import uuid_utils
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from google.type.decimal_pb2 import Decimal as DecimalMessage

from meterscope.client.event import Event, Quantity, text_of
from meterscope.usage.v1 import limit_service_pb2 as pb

# CheckLimit is asked before each use: a caller had better go on without an answer than wait.
CHECK_TIMEOUT: Final = timedelta(seconds=1)
CALL_TIMEOUT: Final = timedelta(seconds=10)


class Check(NamedTuple):
    """A question: may `customer_id` use `quantity` more of `meter`?"""

    customer_id: str
    meter: str
    quantity: Quantity = 1


@dataclass(frozen=True, slots=True)
class LimitCheck:
    """Whether more may be used.

    Attributes:
        allowed: whether it stays within the limit, or the limit does not refuse.
        meter: the meter's id.
        used: used so far in the current period.
        reserved: set aside by reservations and not in `used` yet.
        limit: None without one.
        remaining: `limit - used - reserved`, never below 0; None without a limit.
        percentage: 100 * used / limit; 0 without a limit.
        kind: `HARD` (more is refused), `SOFT` (charged), `DEFAULT` (hard, for want of a plan) or `NONE`.
        reset_time: when the period ends.
        as_of: every event acknowledged before is counted.
        answered_from: `LIVE` (counters in memory) or `DATABASE`.
    """

    allowed: bool
    meter: str
    used: Decimal
    reserved: Decimal
    limit: Decimal | None
    remaining: Decimal | None
    percentage: float
    kind: str
    reset_time: datetime | None
    as_of: datetime | None
    answered_from: str


@dataclass(frozen=True, slots=True)
class LimitFault:
    """Why one of several checks has no answer.

    Attributes:
        reason: an UPPER_SNAKE_CASE word for programs, such as `CUSTOMER_NOT_FOUND`.
        field: the field at fault; may be empty.
        message: for people.
    """

    reason: str
    field: str
    message: str


@dataclass(frozen=True, slots=True)
class Reservation:
    """Quota that is set aside.

    Attributes:
        id: `rsv_…`.
        customer_id: the customer.
        meter: the meter's id.
        quantity: how much is set aside; once committed, how much was used.
        state: `OPEN`, `COMMITTED`, `RELEASED` or `EXPIRED`.
        expire_time: from when on it does not hold any more, unless it was committed before.
    """

    id: str
    customer_id: str
    meter: str
    quantity: Decimal
    state: str
    expire_time: datetime | None


def check_request(check: Check) -> pb.CheckLimitRequest:
    """Encode a question."""
    return pb.CheckLimitRequest(customer_id=check.customer_id, meter=check.meter, quantity=_decimal(check.quantity))


def limit_check(message: pb.CheckLimitResponse) -> LimitCheck:
    """Decode an answer."""
    return LimitCheck(
        allowed=message.allowed,
        meter=message.meter,
        used=_number(message.used),
        reserved=_number(message.reserved),
        limit=_number(message.limit) if message.HasField("limit") else None,
        remaining=_number(message.remaining) if message.HasField("remaining") else None,
        percentage=message.percentage,
        kind=pb.LimitKind.Name(message.kind).removeprefix("LIMIT_KIND_"),
        reset_time=_instant(message.reset_time) if message.HasField("reset_time") else None,
        as_of=_instant(message.as_of) if message.HasField("as_of") else None,
        answered_from=pb.AnsweredFrom.Name(message.answered_from).removeprefix("ANSWERED_FROM_"),
    )


def limit_checks(message: pb.BatchCheckLimitsResponse) -> list[LimitCheck | LimitFault]:
    """Decode the answers to several questions, in their order."""
    return [
        limit_check(result.check)
        if result.HasField("check")
        else LimitFault(result.reason, result.field, result.message)
        for result in message.results
    ]


def reserve_request(
    customer_id: str, meter: str, quantity: Quantity, ttl: timedelta | None, request_id: str | None
) -> pb.ReserveQuotaRequest:
    """Encode a wish for quota; a request id is made where none is given."""
    request = pb.ReserveQuotaRequest(customer_id=customer_id, request_id=request_id or str(uuid_utils.uuid7()))
    request.reservation.meter = meter
    request.reservation.quantity.CopyFrom(_decimal(quantity))
    if ttl is not None:
        duration = Duration()
        duration.FromTimedelta(ttl)
        request.reservation.ttl.CopyFrom(duration)
    return request


def commit_request(
    reservation: Reservation, event: Event, source: str, quantity: Quantity | None
) -> pb.CommitReservationRequest:
    """Encode that reserved use has happened."""
    request = pb.CommitReservationRequest(
        customer_id=reservation.customer_id,
        reservation_id=reservation.id,
        event_source=event.source or source,
        event_id=event.id,
        request_id=str(uuid_utils.uuid7()),
    )
    if quantity is not None:
        request.quantity.CopyFrom(_decimal(quantity))
    return request


def release_request(reservation: Reservation) -> pb.ReleaseReservationRequest:
    """Encode that reserved quota is given back."""
    return pb.ReleaseReservationRequest(
        customer_id=reservation.customer_id, reservation_id=reservation.id, request_id=str(uuid_utils.uuid7())
    )


def reservation_of(message: pb.Reservation) -> Reservation:
    """Decode a reservation."""
    return Reservation(
        id=message.id,
        customer_id=message.customer_id,
        meter=message.meter,
        quantity=_number(message.quantity),
        state=pb.ReservationState.Name(message.state).removeprefix("RESERVATION_STATE_"),
        expire_time=_instant(message.expire_time) if message.HasField("expire_time") else None,
    )


def _decimal(quantity: Quantity) -> DecimalMessage:
    return DecimalMessage(value=text_of("quantity", quantity))


def _number(message: DecimalMessage) -> Decimal:
    return Decimal(message.value or "0")


def _instant(message: Timestamp) -> datetime:
    return message.ToDatetime(UTC)
