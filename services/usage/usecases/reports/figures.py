"""A report's figures: each meter by day and group, with its cost and its trend."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Final

import sqlalchemy as sa

from services.kit.db import Database
from services.usage.domain.calendar import Day
from services.usage.domain.cost import DayCost
from services.usage.domain.limit import Period
from services.usage.domain.report import EXACT, trend
from services.usage.store import costs as cost_store
from services.usage.store import history, meters
from services.usage.store.history import History
from services.usage.store.meters import StoredMeter
from services.usage.usecases.reports.report import GroupValue, MeterDay, MeterReport
from services.usage.usecases.reports.scope import Scope

_NOTHING: Final = Decimal(0)


@dataclass(frozen=True)
class Groups:
    """A meter's groups, of the whole range and of each day. `left_out`: they were too many to be told."""

    whole: tuple[GroupValue, ...] = ()
    days: tuple[tuple[GroupValue, ...], ...] = ()
    left_out: bool = False


def used(conn: sa.Connection, customer: int) -> list[StoredMeter]:
    """Return the meters that a customer has totals of."""
    listed = {each.number: each for each in meters.every(conn)}
    return [listed[number] for number in cost_store.meters_used(conn, customer) if number in listed]


def histories(database: Database, scope: Scope, used: Sequence[StoredMeter]) -> Iterator[History]:
    """Yield what is known of each meter, each read in a transaction of its own."""
    for meter in used:
        with database.autocommit() as conn:
            yield history.read(conn, scope.customer.number, meter, Period(scope.first, scope.behind))


def groups(database: Database, scope: Scope, found: Sequence[History]) -> dict[int, Groups]:
    """Return the groups of those meters that have any, by the meter's number."""
    days = scope.days
    return {
        each.meter.number: _groups(database, scope.customer.number, each.meter, days)
        for each in found
        if each.meter.meter.group_by
    }


def meter_reports(
    scope: Scope, found: Sequence[History], grouped: Mapping[int, Groups], costs: Sequence[DayCost]
) -> tuple[MeterReport, ...]:
    """Return the meters with usage in the range or in the one before, by id.

    Args:
        scope: of the report.
        found: what is known of each meter.
        grouped: see `groups`.
        costs: of the range's days; empty where no price is known.
    """
    by_meter: dict[tuple[str, date], Decimal] = {}
    for cost in costs:
        key = (cost.meter, cost.date)
        by_meter[key] = EXACT.add(by_meter.get(key, _NOTHING), cost.amount)
    priced = {cost.meter for cost in costs}
    days, compared = scope.days, scope.compared
    shown = []
    for each in found:
        meter = each.meter.meter.id
        of_meter = grouped.get(each.meter.number, Groups())
        used = [(place, day) for place, day in enumerate(days) if each.has_usage(day.start, day.end)]
        if not used and not each.has_usage(compared.previous.start, compared.previous.end):
            continue
        shown.append(
            MeterReport(
                meter=each.meter,
                total=each.value(scope.period.start, scope.period.end),
                days=tuple(
                    MeterDay(
                        day.date,
                        each.value(day.start, day.end),
                        by_meter.get((meter, day.date), _NOTHING) if meter in priced else None,
                        of_meter.days[place] if of_meter.days else (),
                    )
                    for place, day in used
                ),
                groups=of_meter.whole,
                groups_left_out=of_meter.left_out,
                trend=trend(
                    compared,
                    each.value(compared.current.start, compared.current.end),
                    each.value(compared.previous.start, compared.previous.end),
                ),
            )
        )
    return tuple(sorted(shown, key=lambda report: report.meter.meter.id))


def _groups(database: Database, customer: int, meter: StoredMeter, days: Sequence[Day]) -> Groups:
    group_by = meter.meter.group_by
    with database.autocommit() as conn:
        whole = history.by_group(conn, customer, meter, [days[0].start, days[-1].end], group_by)
        by_day = history.by_group(conn, customer, meter, [*(day.start for day in days), days[-1].end], group_by)
    return Groups(
        whole=_shown(whole[0]) if whole else (),
        days=tuple(map(_shown, by_day or ())),
        left_out=whole is None or by_day is None,
    )


def _shown(groups: Sequence[tuple[dict[str, str], Decimal]]) -> tuple[GroupValue, ...]:
    return tuple(GroupValue(group, value) for group, value in groups)
