"""Entitlements and limit checks."""

from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Final

from meterscope.usage.v1 import limit_service_pb2 as pb
from services.kit.errors import InvalidArgument, ServiceError
from services.kit.money import decimal_from_proto, decimal_to_proto
from services.usage.convert.fields import instant, text, texts, timestamp
from services.usage.domain.limit import DEFAULT_THRESHOLDS, Limit, LimitKind, Period
from services.usage.domain.meter import check_meter_id
from services.usage.domain.reservation import Reservation, ReservationState
from services.usage.domain.window import time_zone
from services.usage.store.customers import Entitlements
from services.usage.usecases.limits import LIVE, Check, Question
from services.usage.usecases.reservations import Use, Wanted

MOST_CHECKS: Final = 1_000
_HIGHEST_THRESHOLD: Final = 1_000
_ONE: Final = Decimal(1)
# Longer ones have more microseconds than a timedelta holds; whatever is allowed is far below.
_LONGEST_SECONDS: Final = 10**9
_KINDS: Final = {
    LimitKind.HARD: pb.LIMIT_KIND_HARD,
    LimitKind.SOFT: pb.LIMIT_KIND_SOFT,
    LimitKind.DEFAULT: pb.LIMIT_KIND_DEFAULT,
    LimitKind.NONE: pb.LIMIT_KIND_NONE,
}
_STATES: Final = {
    ReservationState.OPEN: pb.RESERVATION_STATE_OPEN,
    ReservationState.COMMITTED: pb.RESERVATION_STATE_COMMITTED,
    ReservationState.RELEASED: pb.RESERVATION_STATE_RELEASED,
    ReservationState.EXPIRED: pb.RESERVATION_STATE_EXPIRED,
}


def entitlements(request: pb.PutEntitlementsRequest) -> Entitlements:
    """Decode entitlements.

    Raises:
        InvalidArgument: names the field.
    """
    text(request.request_id, "request_id")
    if request.revision <= 0:
        raise InvalidArgument.at("revision", f"{request.revision} is none; the first is 1")
    time_zone(request.time_zone, "time_zone")
    return Entitlements(
        customer_id=text(request.customer_id, "customer_id"),
        keys=tuple(sorted(set(texts(request.customer_keys, "customer_keys")))),
        revision=request.revision,
        time_zone=request.time_zone,
        periods=_periods(request),
        limits=_limits(request.limits),
        has_plan=request.has_plan,
    )


def question(request: pb.CheckLimitRequest, path: str = "") -> Question:
    """Decode a check.

    Args:
        request: the check.
        path: before the fields' names in errors, such as `checks[3].`.

    Raises:
        InvalidArgument: names the field.
    """
    return Question(
        text(request.customer_id, f"{path}customer_id"),
        text(request.meter, f"{path}meter"),
        decimal_from_proto(request.quantity, f"{path}quantity") if request.HasField("quantity") else _ONE,
    )


def questions(request: pb.BatchCheckLimitsRequest) -> list[Question | ServiceError]:
    """Decode many checks; what is wrong with one stands in its place.

    Raises:
        InvalidArgument: there is none, or too many.
    """
    count = len(request.checks)
    if not 1 <= count <= MOST_CHECKS:
        raise InvalidArgument.at("checks", f"has {count} checks; send 1 to {MOST_CHECKS}")
    decoded: list[Question | ServiceError] = []
    for index, each in enumerate(request.checks):
        try:
            decoded.append(question(each, f"checks[{index}]."))
        except InvalidArgument as error:
            decoded.append(error)
    return decoded


def results(found: Sequence[Check | ServiceError]) -> pb.BatchCheckLimitsResponse:
    """Encode the answers to many checks."""
    response = pb.BatchCheckLimitsResponse()
    for index, each in enumerate(found):
        if isinstance(each, ServiceError):
            field = each.violations[0].field if each.violations else ""
            response.results.add(index=index, reason=each.reason, field=field, message=each.message)
        else:
            response.results.add(index=index, check=check(each))
    return response


def wanted(request: pb.ReserveQuotaRequest) -> Wanted:
    """Decode what is to be reserved.

    Raises:
        InvalidArgument: names the field.
    """
    text(request.request_id, "request_id")
    asked = request.reservation
    quantity = decimal_from_proto(asked.quantity, "reservation.quantity")
    if not quantity:
        raise InvalidArgument.at("reservation.quantity", "is 0; reserve something")
    ttl = None
    if asked.HasField("ttl"):
        if abs(asked.ttl.seconds) > _LONGEST_SECONDS or abs(asked.ttl.nanos) >= 1_000_000_000:  # noqa: PLR2004 - nanoseconds in a second
            raise InvalidArgument.at("reservation.ttl", "is no such time", reason="TTL_OUT_OF_RANGE")
        ttl = timedelta(seconds=asked.ttl.seconds, microseconds=asked.ttl.nanos // 1000)
    return Wanted(text(request.customer_id, "customer_id"), text(asked.meter, "reservation.meter"), quantity, ttl)


def use(request: pb.CommitReservationRequest) -> Use:
    """Decode what became of a reservation.

    Raises:
        InvalidArgument: names the field.
    """
    text(request.request_id, "request_id")
    quantity = decimal_from_proto(request.quantity, "quantity") if request.HasField("quantity") else None
    if quantity is not None and not quantity:
        raise InvalidArgument.at("quantity", "is 0; release the reservation instead")
    return Use(
        customer_id=text(request.customer_id, "customer_id"),
        reservation_id=text(request.reservation_id, "reservation_id"),
        event_source=text(request.event_source, "event_source"),
        event_id=text(request.event_id, "event_id"),
        quantity=quantity,
    )


def reservation(made: Reservation) -> pb.Reservation:
    """Encode a reservation."""
    return pb.Reservation(
        id=made.id,
        customer_id=made.customer_id,
        meter=made.meter,
        quantity=decimal_to_proto(made.quantity),
        state=_STATES[made.state],
        create_time=timestamp(made.create_time),
        expire_time=timestamp(made.expire_time),
        event_source=made.event_source,
        event_id=made.event_id,
    )


def check(found: Check) -> pb.CheckLimitResponse:
    """Encode how a customer stands."""
    standing = found.standing
    return pb.CheckLimitResponse(
        allowed=found.allowed,
        used=decimal_to_proto(standing.used),
        limit=None if standing.limit is None else decimal_to_proto(standing.limit),
        remaining=None if standing.remaining is None else decimal_to_proto(standing.remaining),
        percentage=float(standing.percentage),
        reset_time=timestamp(standing.period.end),
        kind=_KINDS[standing.kind],
        answered_from=pb.ANSWERED_FROM_LIVE if found.answered_from == LIVE else pb.ANSWERED_FROM_DATABASE,
        as_of=timestamp(found.as_of),
        meter=standing.meter,
        reserved=decimal_to_proto(standing.reserved),
    )


def _periods(request: pb.PutEntitlementsRequest) -> tuple[Period, ...]:
    periods = []
    for index, message in enumerate(request.periods):
        field = f"periods[{index}]"
        start = instant(message.start_time, f"{field}.start_time", given=message.HasField("start_time"))
        end = instant(message.end_time, f"{field}.end_time", given=message.HasField("end_time"))
        if start >= end:
            raise InvalidArgument.at(f"{field}.end_time", "is not after start_time")
        periods.append(Period(start, end))
    for index, (before, after) in enumerate(pairwise(periods)):
        if after.start < before.end:
            raise InvalidArgument.at(f"periods[{index + 1}].start_time", "is before the end of the period before it")
    return tuple(periods)


def _limits(messages: Sequence[pb.Limit]) -> tuple[Limit, ...]:
    limits: dict[str, Limit] = {}
    for index, message in enumerate(messages):
        field = f"limits[{index}]"
        check_meter_id(message.meter, f"{field}.meter")
        if message.meter in limits:
            raise InvalidArgument.at(f"{field}.meter", f"{message.meter!r} has a limit already; send one a meter")
        amount = decimal_from_proto(message.limit, f"{field}.limit")
        limits[message.meter] = Limit(message.meter, amount, _kind(message, field), _thresholds(message, field))
    return tuple(limits.values())


def _kind(message: pb.Limit, field: str) -> LimitKind:
    if message.kind == pb.LIMIT_KIND_HARD:
        return LimitKind.HARD
    if message.kind == pb.LIMIT_KIND_SOFT:
        return LimitKind.SOFT
    raise InvalidArgument.at(f"{field}.kind", f"{message.kind} cannot be set; use HARD or SOFT")


def _thresholds(message: pb.Limit, field: str) -> tuple[int, ...]:
    for threshold in message.thresholds:
        if not 1 <= threshold <= _HIGHEST_THRESHOLD:
            raise InvalidArgument.at(f"{field}.thresholds", f"{threshold} is outside 1 to {_HIGHEST_THRESHOLD} percent")
    return tuple(sorted(set(message.thresholds))) or DEFAULT_THRESHOLDS
