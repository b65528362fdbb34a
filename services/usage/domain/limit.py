"""Limits: how much of a meter a customer may use in a period, and the shares of it at which a signal is raised."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Context, Decimal
from enum import StrEnum
from typing import Final

from services.kit.errors import InvalidArgument
from services.kit.money import parse_quantity
from services.usage.domain.meter import check_meter_id

DEFAULT_THRESHOLDS: Final = (80, 95, 100)
_HUNDRED: Final = Decimal(100)
_CONTEXT: Final = Context(prec=60)


class LimitKind(StrEnum):
    """What a limit does when it is reached. DEFAULT is a HARD one that applies for want of a plan."""

    HARD = "HARD"
    SOFT = "SOFT"
    DEFAULT = "DEFAULT"
    NONE = "NONE"


@dataclass(frozen=True)
class Period:
    """What a limit applies to: `[start, end)`, UTC."""

    start: datetime
    end: datetime


@dataclass(frozen=True)
class Limit:
    """The most that a period allows of a meter. `thresholds` are percentages, ascending, none twice."""

    meter: str
    amount: Decimal
    kind: LimitKind
    thresholds: tuple[int, ...] = DEFAULT_THRESHOLDS


@dataclass(frozen=True)
class Standing:
    """How a customer stands with a meter in a period. `limit` is None where there is no limit.

    `reserved` is set aside by reservations and not in `used` yet.
    """

    meter: str
    used: Decimal
    reserved: Decimal
    limit: Decimal | None
    kind: LimitKind
    period: Period

    def allows(self, quantity: Decimal) -> bool:
        """Say whether `quantity` more stays within the limit, or the limit does not refuse."""
        if self.limit is None or self.kind is LimitKind.SOFT or self.kind is LimitKind.NONE:
            return True
        return _CONTEXT.add(self._taken, quantity) <= self.limit

    @property
    def remaining(self) -> Decimal | None:
        """What is neither used nor reserved, never below 0; None without a limit."""
        return None if self.limit is None else max(_CONTEXT.subtract(self.limit, self._taken), Decimal(0))

    @property
    def percentage(self) -> Decimal:
        """The used share of the limit in percent, to two decimals; 0 without a limit. Of a limit of 0, any use is 100."""
        if self.limit is None or not self.used:
            return Decimal(0)
        if self.limit == 0:
            return _HUNDRED
        share = _CONTEXT.divide(_CONTEXT.multiply(_HUNDRED, self.used), self.limit)
        return share.quantize(Decimal("0.01"), context=_CONTEXT)

    @property
    def _taken(self) -> Decimal:
        return _CONTEXT.add(self.used, self.reserved) if self.reserved else self.used


def standing(
    meter: str, used: Decimal, reserved: Decimal, limit: Limit | None, period: Period, *, has_plan: bool
) -> Standing:
    """Return how a customer stands. A hard limit of a customer without a plan is a DEFAULT one."""
    if limit is None:
        return Standing(meter, used, reserved, None, LimitKind.NONE, period)
    kind = LimitKind.DEFAULT if limit.kind is LimitKind.HARD and not has_plan else limit.kind
    return Standing(meter, used, reserved, limit.amount, kind, period)


def parse_defaults(parts: Sequence[str]) -> tuple[Limit, ...]:
    """Read the limits of customers without a plan, each as `meter=amount`.

    Raises:
        ValueError: not such a pair, no meter's id, no amount, or a meter twice.
    """
    limits: dict[str, Limit] = {}
    for part in parts:
        meter, given, amount = (each.strip() for each in part.partition("="))
        if not given:
            raise ValueError(f"has {part!r}, which is no meter=amount")
        try:
            check_meter_id(meter, "meter")
            quantity = parse_quantity(amount, "amount")
        except InvalidArgument as error:
            raise ValueError(f"has {part!r}, whose {error.message}") from None
        if meter in limits:
            raise ValueError(f"has {meter!r} twice")
        limits[meter] = Limit(meter, quantity, LimitKind.HARD)
    return tuple(limits[meter] for meter in sorted(limits))
