"""What days cost: running prices taken apart by day, flat fees spread so that the parts add up."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Final

from services.kit.money import Money, allocate
from services.usage.domain.calendar import Day
from services.usage.domain.limit import Period
from services.usage.domain.report import EXACT, LEAST_ELAPSED

# 150 % above.
SPIKE_FACTOR: Final = Decimal("2.5")


@dataclass(frozen=True)
class Component:
    """What a component of a plan costs up to each moment of its meter; a flat fee has one amount, for the period."""

    id: str
    display_name: str
    meter: str
    amounts: tuple[Decimal, ...]


@dataclass(frozen=True)
class PeriodPrice:
    """What a period costs. `plan_id` is empty where the customer has no plan."""

    plan_id: str = ""
    plan_version: int = 0
    currency: str = ""
    components: tuple[Component, ...] = ()


@dataclass(frozen=True)
class DayCost:
    """What a component costs on a day, before rounding. `quantity` is what the period had used through the day."""

    date: date
    component: str
    display_name: str
    meter: str
    quantity: Decimal
    amount: Decimal


@dataclass(frozen=True)
class Running:
    """What a meter had used at the end of each day on which it moved."""

    dates: tuple[date, ...]
    quantities: tuple[Decimal, ...]


def by_day(price: PeriodPrice, usage: Mapping[str, Running], days: Sequence[Day]) -> list[DayCost]:
    """Take a period's prices apart by day.

    The cost of a day is the price of what the period used through it, less the price of what it used through the day
    before: tiers and included units count as in the invoice, and the days add up to it exactly. A flat fee is spread
    over all days of the period by their seconds, in the currency's smallest units.

    Args:
        price: what billing says of the running totals.
        usage: those running totals by meter.
        days: of the period, without gaps.
    """
    costs = []
    for component in price.components:
        if not component.meter:
            parts = allocate(Money(component.amounts[0], price.currency), [_seconds(day) for day in days])
            costs += [
                DayCost(day.date, component.id, component.display_name, "", Decimal(1), part.amount)
                for day, part in zip(days, parts, strict=True)
                if part.amount
            ]
            continue
        running, below = usage[component.meter], Decimal(0)
        for day, quantity, amount in zip(running.dates, running.quantities, component.amounts, strict=True):
            part = EXACT.subtract(amount, below)
            costs.append(DayCost(day, component.id, component.display_name, component.meter, quantity, part))
            below = amount
    return costs


@dataclass(frozen=True)
class Spike:
    """A period whose usage costs far more than that of the period before did at the same elapsed fraction."""

    cost: Decimal
    before: Decimal
    elapsed_percent: int


def spike(
    cost: Decimal, period: Period, before: Mapping[date, Decimal], days: Sequence[Day], now: datetime
) -> Spike | None:
    """Say whether a period's usage costs more than 2.5 times as much as that of the period before at the same fraction.

    Args:
        cost: of the usage so far, without flat fees.
        period: the period, which is open.
        before: the same of the period before, by day.
        days: of the period before.
        now: up to when was used.
    """
    elapsed = _span(period.start, now) / _span(period.start, period.end)
    if elapsed < LEAST_ELAPSED:
        return None
    until = days[0].start + timedelta(seconds=int(elapsed * _span(days[0].start, days[-1].end)))
    then = Decimal(0)
    for day in days:
        if day.start < until:
            part = _span(day.start, min(day.end, until)) / _seconds(day)
            then = EXACT.add(then, EXACT.multiply(before.get(day.date, Decimal(0)), part))
    if then <= 0 or cost <= EXACT.multiply(SPIKE_FACTOR, then):
        return None
    return Spike(cost, then, int(100 * elapsed))


def _seconds(day: Day) -> Decimal:
    return _span(day.start, day.end)


def _span(start: datetime, end: datetime) -> Decimal:
    return Decimal((end - start) // timedelta(microseconds=1)) / 1_000_000
