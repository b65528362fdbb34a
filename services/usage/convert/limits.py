"""Entitlements and limit checks."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from meterscope.usage.v1 import limit_service_pb2 as pb
from services.kit.errors import InvalidArgument
from services.kit.money import decimal_from_proto, decimal_to_proto
from services.usage.convert.fields import instant, text, texts, timestamp
from services.usage.domain.limit import DEFAULT_THRESHOLDS, Limit, LimitKind, Period
from services.usage.domain.meter import check_meter_id
from services.usage.domain.window import time_zone
from services.usage.store.customers import Entitlements
from services.usage.usecases.limits import LIVE, Check

_HIGHEST_THRESHOLD: Final = 1_000
_KINDS: Final = {
    LimitKind.HARD: pb.LIMIT_KIND_HARD,
    LimitKind.SOFT: pb.LIMIT_KIND_SOFT,
    LimitKind.DEFAULT: pb.LIMIT_KIND_DEFAULT,
    LimitKind.NONE: pb.LIMIT_KIND_NONE,
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
