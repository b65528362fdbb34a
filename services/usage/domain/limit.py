"""Limits: how much of a meter a customer may use in a period, and the shares of it at which a signal is raised."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Context, Decimal
from enum import StrEnum
from typing import Final

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
    """How a customer stands with a meter in a period. `limit` is None where there is no limit."""

    meter: str
    used: Decimal
    limit: Decimal | None
    kind: LimitKind
    period: Period

    def allows(self, quantity: Decimal) -> bool:
        """Say whether `quantity` more stays within the limit, or the limit does not refuse."""
        if self.limit is None or self.kind in {LimitKind.SOFT, LimitKind.NONE}:
            return True
        return _CONTEXT.add(self.used, quantity) <= self.limit

    @property
    def remaining(self) -> Decimal | None:
        """What is left, never below 0; None without a limit."""
        return None if self.limit is None else max(_CONTEXT.subtract(self.limit, self.used), Decimal(0))

    @property
    def percentage(self) -> Decimal:
        """The used share of the limit in percent, to two decimals; 0 without a limit. Of a limit of 0, any use is 100."""
        if self.limit is None:
            return Decimal(0)
        if self.limit == 0:
            return _HUNDRED if self.used else Decimal(0)
        share = _CONTEXT.divide(_CONTEXT.multiply(_HUNDRED, self.used), self.limit)
        return share.quantize(Decimal("0.01"), context=_CONTEXT)


def standing(meter: str, used: Decimal, limit: Limit | None, period: Period, *, has_plan: bool) -> Standing:
    """Return how a customer stands. A hard limit of a customer without a plan is a DEFAULT one."""
    if limit is None:
        return Standing(meter, used, None, LimitKind.NONE, period)
    kind = LimitKind.DEFAULT if limit.kind is LimitKind.HARD and not has_plan else limit.kind
    return Standing(meter, used, limit.amount, kind, period)
