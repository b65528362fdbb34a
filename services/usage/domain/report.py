"""What a report concludes from usage: trend, kept limits, and the plan that fits."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import ROUND_HALF_UP, Context, Decimal
from enum import Enum, auto
from typing import Final

from services.kit.money import Money, plain
from services.usage.domain.instant import QUARTER, quarter
from services.usage.domain.limit import Limit, LimitKind, Period

EXACT: Final = Context(prec=160)
_ROUNDING: Final = Context(prec=60, rounding=ROUND_HALF_UP)
_HUNDRED: Final = Decimal(100)
_CENT: Final = Decimal("0.01")
# A saving of less is not worth a change.
_WORTH_PERCENT: Final = 5
# Of a period that is open for less, the pace says nothing.
LEAST_ELAPSED: Final = Decimal("0.1")


@dataclass(frozen=True)
class Comparison:
    """Which usage is compared with which: `[start, end)` of the range and of the one before."""

    current: Period
    previous: Period


@dataclass(frozen=True)
class Trend:
    """A meter against the range before. `percent` is None where there was no usage before."""

    comparison: Comparison
    current: Decimal
    previous: Decimal
    change: Decimal
    percent: Decimal | None


def comparison(current: Period, previous: Period, now: datetime) -> Comparison:
    """Cut both ranges at the same elapsed fraction, at quarters of an hour; whole ones where the range is over."""
    if now >= current.end:
        return Comparison(current, previous)
    until = max(current.start, quarter(now))
    fraction = Decimal((until - current.start) // QUARTER) / Decimal(max(1, (current.end - current.start) // QUARTER))
    quarters = int(fraction * ((previous.end - previous.start) // QUARTER))
    # A period may begin within a quarter of an hour, but totals are cut at whole ones.
    behind = max(previous.start, quarter(previous.start + quarters * QUARTER))
    return Comparison(Period(current.start, until), Period(previous.start, behind))


def before(current: Period) -> Period:
    """Return the time of the same length right before a range."""
    return Period(current.start - (current.end - current.start), current.start)


def trend(compared: Comparison, current: Decimal, previous: Decimal) -> Trend:
    """Compare two values."""
    change = EXACT.subtract(current, previous)
    percent = None
    if previous:
        percent = _ROUNDING.divide(_ROUNDING.multiply(_HUNDRED, change), previous).quantize(_CENT, context=_ROUNDING)
    return Trend(compared, current, previous, change, percent)


@dataclass(frozen=True)
class Kept:
    """How a limit was kept in a period. `exceeded_at` is the quarter of an hour in which it was exceeded."""

    limit: Limit
    period: Period
    used: Decimal
    exceeded_at: datetime | None

    @property
    def excess(self) -> Decimal | None:
        """What was used above the limit; None if it was kept."""
        return EXACT.subtract(self.used, self.limit.amount) if self.used > self.limit.amount else None


def kept(limit: Limit, period: Period, running: Sequence[tuple[datetime, Decimal]]) -> Kept:
    """Judge a limit by a period's running values: each quarter's first instant, and the value at the end of it."""
    used = running[-1][1] if running else Decimal(0)
    crossed = next((instant for instant, value in running if value > limit.amount), None)
    return Kept(limit, period, used, crossed if used > limit.amount else None)


@dataclass(frozen=True)
class Basis:
    """A period's usage, by which plans are compared. `projected`: carried on at its pace to the period's end."""

    period: Period
    quantities: Mapping[str, Decimal]
    projected: bool


def basis(period: Period, quantities: Mapping[str, Decimal], adding: Iterable[str], now: datetime) -> Basis | None:
    """Return what a period's usage says of a plan, None where it is too early for that.

    Args:
        period: of the quantities.
        quantities: what was used so far, by meter.
        adding: the meters whose value grows with time; others, such as a maximum, are taken as they are.
        now: up to when was used.
    """
    if now >= period.end:
        return Basis(period, quantities, projected=False)
    whole = Decimal((period.end - period.start) // timedelta(seconds=1))
    elapsed = Decimal(max(0, (now - period.start) // timedelta(seconds=1))) / whole
    if elapsed < LEAST_ELAPSED:
        return None
    growing = set(adding)
    carried = {
        meter: _ROUNDING.divide(value, elapsed).quantize(_CENT, context=_ROUNDING) if meter in growing else value
        for meter, value in quantities.items()
    }
    return Basis(period, carried, projected=True)


@dataclass(frozen=True)
class PlanCost:
    """What the usage would have cost on a plan; `limits` are a period's."""

    plan_id: str
    version: int
    display_name: str
    is_current: bool
    precise_total: Decimal
    total: Money
    flat_fees: Money
    limits: tuple[Limit, ...]


class Action(Enum):
    """What to do about the plan. NONE: nothing can be said."""

    NONE = auto()
    STAY = auto()
    UPGRADE = auto()
    DOWNGRADE = auto()


@dataclass(frozen=True)
class Option:
    """A plan and whether it holds the usage. `exceeded` are the meters whose limit, hard or soft, does not."""

    cost: PlanCost
    fits: bool
    exceeded: tuple[str, ...]


@dataclass(frozen=True)
class Recommendation:
    """Which plan fits, and why."""

    action: Action
    plan_id: str = ""
    reasons: tuple[str, ...] = ()
    saving: Money | None = None
    bases: tuple[Basis, ...] = ()
    options: tuple[Option, ...] = field(default=())


def recommend(costs: Sequence[PlanCost], bases: Sequence[Basis]) -> Recommendation:
    """Choose the cheapest plan whose hard limits hold the usage, if it is worth the change.

    Args:
        costs: what the usage would have cost on each plan, the cheapest first.
        bases: the periods that were priced.
    """
    options = tuple(_option(cost, bases) for cost in costs)
    current = next((option for option in options if option.cost.is_current), None)
    fitting = [option for option in options if option.fits]
    if current is None:
        cheapest = f" The cheapest that holds this usage is {_named(fitting[0])}." if fitting else ""
        reason = f"The customer is on no plan, so there is none to compare with.{cheapest}"
        return Recommendation(Action.NONE, reasons=(reason,), bases=tuple(bases), options=options)
    reasons = [f"The usage of {_periods(bases)} costs {current.cost.total} on {current.cost.display_name}."]
    if current.exceeded:
        does = "are reached by" if current.fits else "do not hold"
        reasons.append(f"Its limits on {', '.join(current.exceeded)} {does} this usage.")
    best = fitting[0] if fitting else current
    saving = current.cost.total - best.cost.total
    if not fitting:
        reasons.append("There is no plan in the catalogue whose hard limits hold this usage.")
    elif current.fits and best is not current:
        share = _ROUNDING.divide(_HUNDRED * saving.amount, current.cost.total.amount) if saving.amount else Decimal(0)
        if share < _WORTH_PERCENT:
            reasons.append(
                f"{_named(best)} would save {saving}, less than {_WORTH_PERCENT} % of it: not worth a change."
            )
            best = current
        else:
            reasons.append(f"{_named(best)}: {saving} less, which is {share:.1f} % of it.")
    elif current.fits:
        reasons.append("No plan whose hard limits hold this usage costs less.")
    else:
        reasons.append(f"The cheapest plan whose hard limits hold it is {_named(best)}.")
    if best is current:
        return Recommendation(Action.STAY, current.cost.plan_id, tuple(reasons), None, tuple(bases), options)
    grows = not current.fits or best.cost.flat_fees.amount > current.cost.flat_fees.amount
    action = Action.UPGRADE if grows else Action.DOWNGRADE
    return Recommendation(action, best.cost.plan_id, tuple(reasons), saving, tuple(bases), options)


def _option(cost: PlanCost, bases: Sequence[Basis]) -> Option:
    exceeded = []
    fits = True
    for limit in cost.limits:
        most = max((basis.quantities.get(limit.meter, Decimal(0)) for basis in bases), default=Decimal(0))
        if most > limit.amount:
            exceeded.append(limit.meter)
            fits = fits and limit.kind is LimitKind.SOFT
    return Option(cost, fits, tuple(exceeded))


def _named(option: Option) -> str:
    return f"{option.cost.display_name} ({option.cost.total})"


def _periods(bases: Sequence[Basis]) -> str:
    named = "one period" if len(bases) == 1 else f"{plain(Decimal(len(bases)))} periods"
    return (
        f"{named}, the open one carried on at its pace to its end," if any(each.projected for each in bases) else named
    )
