"""Reports on a customer's usage: made at once, or over a long range by a job."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Final
from zoneinfo import ZoneInfo

import sqlalchemy as sa

from services.kit import telemetry
from services.kit.db import Database
from services.kit.errors import InvalidArgument, ServiceError
from services.kit.ids import new_id
from services.kit.money import Money, exponent, quantize
from services.kit.outbox import Job, Outbox
from services.usage.clients import Billing, BillingAway
from services.usage.domain.calendar import Day, days
from services.usage.domain.cost import DayCost
from services.usage.domain.instant import quarter
from services.usage.domain.limit import LimitKind, Period
from services.usage.domain.report import (
    EXACT,
    Action,
    Comparison,
    Kept,
    Recommendation,
    Trend,
    basis,
    before,
    comparison,
    kept,
    recommend,
    trend,
)
from services.usage.errors import CustomerNotFound, ReportNotFound
from services.usage.metrics import ReportMetrics
from services.usage.store import costs as cost_store
from services.usage.store import customers, history, meters, places, quarantine, reports
from services.usage.store.costs import CustomerPeriod
from services.usage.store.customers import Customer
from services.usage.store.history import History
from services.usage.store.meters import StoredMeter
from services.usage.store.reports import StoredReport
from services.usage.usecases.costs import Costs
from services.usage.usecases.positions import Positions

MAKE_REPORT: Final = "make_usage_report"
MAKE_ATTEMPTS: Final = 5
_WAIT_SECONDS: Final = 2.0
_AT_ONCE: Final = timedelta(days=92)
_LONGEST: Final = timedelta(days=3660)
_FRESH: Final = timedelta(hours=1)
_KEPT: Final = timedelta(days=7)
_ADDING: Final = ("COUNT", "SUM")
_NOTHING: Final = Decimal(0)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class GroupValue:
    """A meter's value for a group."""

    group: Mapping[str, str]
    value: Decimal


@dataclass(frozen=True)
class MeterDay:
    """A meter's day. `cost` is None where no price is known."""

    date: date
    value: Decimal
    cost: Decimal | None
    groups: tuple[GroupValue, ...]


@dataclass(frozen=True)
class MeterReport:
    """A meter in a report."""

    meter: StoredMeter
    total: Decimal
    days: tuple[MeterDay, ...]
    trend: Trend
    groups: tuple[GroupValue, ...]
    groups_left_out: bool


@dataclass(frozen=True)
class _Groups:
    """A meter's groups, of the whole range and of each day. `left_out`: they were too many to be told."""

    whole: tuple[GroupValue, ...] = ()
    days: tuple[tuple[GroupValue, ...], ...] = ()
    left_out: bool = False


@dataclass(frozen=True)
class ComponentCost:
    """What a component cost in the range."""

    id: str
    display_name: str
    meter: str
    precise: Decimal
    amount: Money


@dataclass(frozen=True)
class Cost:
    """What the range cost. `state` is PRICED, STALE, NO_PLAN or UNKNOWN; `as_of` is None where nothing was priced."""

    state: str
    currency: str = ""
    plan_id: str = ""
    components: tuple[ComponentCost, ...] = ()
    days: tuple[tuple[date, Decimal], ...] = ()
    precise: Decimal = _NOTHING
    total: Money | None = None
    as_of: datetime | None = None


@dataclass(frozen=True)
class Compliance:
    """Whether limits were kept and the data is complete."""

    limits: tuple[Kept, ...]
    as_of: datetime
    is_complete: bool
    quarantined: int
    lag: float


@dataclass(frozen=True)
class UsageReport:
    """A report."""

    customer_id: str
    period: Period
    time_zone: str
    made_at: datetime
    meters: tuple[MeterReport, ...]
    cost: Cost
    recommendation: Recommendation
    compliance: Compliance


@dataclass(frozen=True)
class _Asked:
    """A report's range, the one before, the periods it touches, and up to when all is counted."""

    customer: Customer
    zone: ZoneInfo
    period: Period
    compared: Comparison
    periods: Sequence[Period]
    now: datetime
    as_of: datetime
    is_complete: bool

    @property
    def first(self) -> datetime:
        """The earliest instant that is looked at."""
        return min(self.compared.previous.start, self.periods[0].start)

    @property
    def behind(self) -> datetime:
        """The first instant that is not."""
        return max(self.period.end, self.periods[-1].end)


class Reports:
    """Makes reports."""

    def __init__(
        self,
        database: Database,
        outbox: Outbox,
        billing: Billing,
        costs: Costs,
        positions: Positions,
        metrics: ReportMetrics,
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._outbox = outbox
        self._billing = billing
        self._costs = costs
        self._positions = positions
        self._metrics = metrics
        self._clock = clock

    def get(self, customer_id: str, start: datetime | None, end: datetime | None) -> UsageReport | StoredReport:
        """Return the report on a range, or how far the job is that makes it.

        Args:
            customer_id: whose.
            start: the first instant; None for that of the current period.
            end: the first instant behind; None for that of the current period.

        Raises:
            CustomerNotFound: there is none of this id.
            InvalidArgument: a range that is none, too long or not in quarters of an hour.
        """
        now = self._clock()
        with self._database.autocommit() as conn:
            customer = _customer(conn, customer_id, now)
            period = _range(conn, customer, start, end)
        if period.end - period.start > _AT_ONCE:
            return self._start(customer, period, now)
        complete = self._positions.wait_for_all(_WAIT_SECONDS)
        with telemetry.customer(customer_id):
            return self._make(customer, period, is_complete=complete)

    def stored(self, customer_id: str, report_id: str) -> StoredReport:
        """Return how far a job is with a report, or the report.

        Raises:
            CustomerNotFound: there is none of this id.
            ReportNotFound: the customer has no such report, or not any more.
        """
        with self._database.autocommit() as conn:
            customer = _customer(conn, customer_id, self._clock())
            found = reports.find(conn, customer.number, report_id)
        if found is None:
            raise ReportNotFound(customer_id, report_id)
        return found

    def make(self, job: Job, encode: Callable[[UsageReport], bytes]) -> None:
        """Make a long report, and store it. After the last attempt the report says why there is none."""
        report_id = job.payload["report_id"]
        with self._database.autocommit() as conn:
            customer_id = reports.customer_of(conn, report_id)
            if customer_id is None:
                return
            customer = _customer(conn, customer_id, self._clock())
            stored = reports.find(conn, customer.number, report_id)
        if stored is None or stored.state != reports.RUNNING:
            return

        def show(percent: int) -> None:
            with self._database.transaction() as conn:
                reports.progress(conn, report_id, percent)

        with telemetry.customer(customer_id):
            try:
                encoded = encode(
                    self._make(
                        customer,
                        stored.period,
                        is_complete=self._positions.wait_for_all(_WAIT_SECONDS),
                        show=show,
                        by="job",
                    )
                )
            except ServiceError as error:
                if job.attempt < MAKE_ATTEMPTS:
                    raise
                message = error.message
                self._end(job, lambda conn, at: reports.fail(conn, report_id, message, at))
                return
            self._end(job, lambda conn, at: reports.finish(conn, report_id, encoded, at))
            _log.info("made a usage report", extra={"report_id": report_id})

    def _end(self, job: Job, write: Callable[[sa.Connection, datetime], None]) -> None:
        now = self._clock()
        with self._database.transaction() as conn:
            write(conn, now)
            reports.purge(conn, now - _KEPT)
            job.finish(conn)

    def _start(self, customer: Customer, period: Period, now: datetime) -> StoredReport:
        with self._database.transaction() as conn:
            reports.lock_customer(conn, customer.number)
            found = reports.newest(conn, customer.number, period, now - _FRESH)
            if found is None:
                found = StoredReport(new_id("rep"), period, reports.RUNNING, 0, "", b"")
                reports.add(conn, customer.number, found.id, period, now)
                self._outbox.put(conn, job=MAKE_REPORT, payload={"report_id": found.id})
        return found

    def _make(
        self,
        customer: Customer,
        period: Period,
        *,
        is_complete: bool,
        show: Callable[[int], None] = lambda _percent: None,
        by: str = "call",
    ) -> UsageReport:
        started = time.perf_counter()
        now = self._clock()
        with self._database.autocommit() as conn:
            # The place first: the totals that are read after it can only be newer.
            as_of = places.rollup(conn).as_of
            listed = {each.number: each for each in meters.every(conn)}
            numbers = [number for number in cost_store.meters_used(conn, customer.number) if number in listed]
            periods = cost_store.periods(conn, customer.number, period.start, period.end)
            previous = _previous(conn, customer.number, period)
        asked = _Asked(
            customer,
            ZoneInfo(customer.time_zone),
            period,
            comparison(period, previous, now),
            periods,
            now,
            as_of,
            is_complete,
        )
        found = []
        for place, number in enumerate(numbers):
            with self._database.autocommit() as conn:
                found.append(history.read(conn, customer.number, listed[number], Period(asked.first, asked.behind)))
            show(10 + 60 * (place + 1) // len(numbers))
        state = self._price(asked)
        cut = days(period.start, period.end, asked.zone)
        grouped = {
            each.meter.number: self._groups(customer.number, each.meter, cut)
            for each in found
            if each.meter.meter.group_by
        }
        with self._database.autocommit() as conn:
            day_costs = cost_store.of_periods(
                conn, customer.number, [each.start for each in periods], cut[0].date, cut[-1].date
            )
            headers = cost_store.headers(conn, customer.number, [each.start for each in periods])
            held = quarantine.count_of_customer(conn, customer.number, period.end)
        show(85)
        cost = _cost(state, headers, day_costs)
        report = UsageReport(
            customer_id=customer.id,
            period=period,
            time_zone=customer.time_zone,
            made_at=now,
            meters=tuple(_meters(asked, found, grouped, cut, day_costs if cost.state in {"PRICED", "STALE"} else ())),
            cost=cost,
            recommendation=self._recommend(asked, found),
            compliance=_compliance(asked, found, held),
        )
        self._metrics.made(by, time.perf_counter() - started)
        return report

    def _groups(self, customer: int, meter: StoredMeter, cut: Sequence[Day]) -> _Groups:
        group_by = meter.meter.group_by
        with self._database.autocommit() as conn:
            whole = history.by_group(conn, customer, meter, [cut[0].start, cut[-1].end], group_by)
            by_day = history.by_group(conn, customer, meter, [*(day.start for day in cut), cut[-1].end], group_by)
        return _Groups(
            whole=_shown(whole[0]) if whole else (),
            days=tuple(map(_shown, by_day or ())),
            left_out=whole is None or by_day is None,
        )

    def _price(self, asked: _Asked) -> str:
        customer = asked.customer
        wanted = [
            CustomerPeriod(customer.number, customer.id, customer.time_zone, customer.revision, period)
            for period in asked.periods
        ]
        try:
            self._costs.refresh(wanted)
        except BillingAway:
            _log.warning("a report shows the cost as it was last priced", exc_info=True)
            return "STALE"
        return "PRICED"

    def _recommend(self, asked: _Asked, found: Sequence[History]) -> Recommendation:
        adding = [each.meter.meter.id for each in found if each.meter.meter.aggregation.value in _ADDING]
        judged = [
            basis(
                period,
                {each.meter.meter.id: each.value(period.start, period.end) for each in found},
                adding,
                asked.now,
            )
            for period in asked.periods
            if period.start < asked.now
        ]
        bases = [each for each in judged if each is not None]
        if not bases:
            reason = "Less than a tenth of the period is over: its pace says nothing yet."
            return Recommendation(Action.NONE, reasons=(reason,))
        try:
            plans = self._billing.compare(asked.customer.id, [each.quantities for each in bases])
        except BillingAway:
            return Recommendation(Action.NONE, reasons=("Billing, which knows the prices, cannot be reached now.",))
        return recommend(plans, bases)


def _customer(conn: sa.Connection, customer_id: str, now: datetime) -> Customer:
    found = customers.find(conn, customer_id, now)
    if found is None:
        raise CustomerNotFound(customer_id)
    return found


def _range(conn: sa.Connection, customer: Customer, start: datetime | None, end: datetime | None) -> Period:
    period = Period(start or customer.period.start, end or customer.period.end)
    for field, instant in (("start_time", period.start), ("end_time", period.end)):
        if quarter(instant) != instant and customers.period_start(conn, customer.number, instant) != instant:
            raise InvalidArgument.at(
                field, f"{instant.isoformat()} is neither a whole quarter of an hour (UTC) nor the start of a period"
            )
    if period.start >= period.end:
        raise InvalidArgument.at("end_time", "is not after start_time")
    if period.end - period.start > _LONGEST:
        raise InvalidArgument.at("end_time", f"is more than {_LONGEST.days} days after start_time")
    return period


def _previous(conn: sa.Connection, customer: int, period: Period) -> Period:
    """Return the period before, if the range is a period, else the time of the same length before the range."""
    if cost_store.periods(conn, customer, period.start, period.end) == [period]:
        instant = period.start - timedelta(microseconds=1)
        return cost_store.periods(conn, customer, instant, period.start)[0]
    return before(period)


def _meters(
    asked: _Asked,
    found: Sequence[History],
    grouped: Mapping[int, _Groups],
    cut: Sequence[Day],
    costs: Sequence[DayCost],
) -> list[MeterReport]:
    by_meter: dict[tuple[str, date], Decimal] = {}
    for cost in costs:
        key = (cost.meter, cost.date)
        by_meter[key] = EXACT.add(by_meter.get(key, _NOTHING), cost.amount)
    shown = []
    for each in found:
        meter = each.meter.meter.id
        priced = any(cost.meter == meter for cost in costs)
        groups = grouped.get(each.meter.number, _Groups())
        used = [(place, day) for place, day in enumerate(cut) if each.has_usage(day.start, day.end)]
        compared = asked.compared
        if not used and not each.has_usage(compared.previous.start, compared.previous.end):
            continue
        shown.append(
            MeterReport(
                meter=each.meter,
                total=each.value(asked.period.start, asked.period.end),
                days=tuple(
                    MeterDay(
                        day.date,
                        each.value(day.start, day.end),
                        by_meter.get((meter, day.date), _NOTHING) if priced else None,
                        groups.days[place] if groups.days else (),
                    )
                    for place, day in used
                ),
                groups=groups.whole,
                groups_left_out=groups.left_out,
                trend=trend(
                    compared,
                    each.value(compared.current.start, compared.current.end),
                    each.value(compared.previous.start, compared.previous.end),
                ),
            )
        )
    return sorted(shown, key=lambda report: report.meter.meter.id)


def _shown(groups: Sequence[tuple[dict[str, str], Decimal]]) -> tuple[GroupValue, ...]:
    return tuple(GroupValue(group, value) for group, value in groups)


def _cost(state: str, headers: Mapping[datetime, cost_store.Header], costs: Sequence[DayCost]) -> Cost:
    if not headers:
        return Cost("UNKNOWN" if state == "STALE" else "NO_PLAN")
    as_of = min(header.as_of for header in headers.values())
    newest = headers[max(headers)]
    currency = next((header.currency for header in headers.values() if header.currency), "")
    if not currency:
        return Cost("NO_PLAN", as_of=as_of)
    components: dict[str, ComponentCost] = {}
    by_day: dict[date, Decimal] = {}
    for cost in costs:
        known = components.get(cost.component)
        precise = EXACT.add(known.precise if known else _NOTHING, cost.amount)
        components[cost.component] = ComponentCost(
            cost.component, cost.display_name, cost.meter, precise, _rounded(precise, currency)
        )
        by_day[cost.date] = EXACT.add(by_day.get(cost.date, _NOTHING), cost.amount)
    total = Money(sum((each.amount.amount for each in components.values()), _NOTHING), currency)
    precise = _NOTHING
    for each in components.values():
        precise = EXACT.add(precise, each.precise)
    return Cost(
        state=state,
        currency=currency,
        plan_id=newest.plan_id,
        components=tuple(components.values()),
        days=tuple((day, amount) for day, amount in sorted(by_day.items()) if amount),
        precise=precise,
        total=total,
        as_of=as_of,
    )


def _rounded(amount: Decimal, currency: str) -> Money:
    return Money(quantize(amount, exponent(currency)), currency)


def _compliance(asked: _Asked, found: Sequence[History], held: int) -> Compliance:
    by_meter = {each.meter.meter.id: each for each in found}
    judged = []
    for period in asked.periods:
        for meter, limit in sorted(asked.customer.limits.items()):
            if limit.kind is LimitKind.HARD and not asked.customer.has_plan:
                limit = replace(limit, kind=LimitKind.DEFAULT)  # noqa: PLW2901 - the same limit, as it is told
            running = list(by_meter[meter].running(period)) if meter in by_meter else []
            judged.append(kept(limit, period, running))
    return Compliance(
        limits=tuple(judged),
        as_of=max(asked.as_of, asked.now) if asked.is_complete else asked.as_of,
        is_complete=asked.is_complete and not held,
        quarantined=held,
        lag=0.0 if asked.is_complete else max(0.0, (asked.now - asked.as_of).total_seconds()),
    )
