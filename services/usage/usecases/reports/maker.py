"""Makes a report from what is stored and from what billing says."""

import time
from collections.abc import Callable
from datetime import datetime
from typing import Final

from services.kit.db import Database
from services.usage.clients import Billing
from services.usage.domain.limit import Period
from services.usage.metrics import ReportMetrics
from services.usage.store import costs as cost_store
from services.usage.store import places, quarantine
from services.usage.store.customers import Customer
from services.usage.usecases.costs import Costs
from services.usage.usecases.positions import Positions
from services.usage.usecases.reports import figures
from services.usage.usecases.reports.compliance import compliance
from services.usage.usecases.reports.cost import brought_up, cost
from services.usage.usecases.reports.recommendation import recommendation
from services.usage.usecases.reports.report import UsageReport
from services.usage.usecases.reports.scope import scope

BY_CALL: Final = "call"
BY_JOB: Final = "job"
_WAIT_SECONDS: Final = 2.0


class ReportMaker:
    """Makes reports, as complete as the rollup allows within 2 s."""

    def __init__(
        self,
        database: Database,
        billing: Billing,
        costs: Costs,
        positions: Positions,
        metrics: ReportMetrics,
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._billing = billing
        self._costs = costs
        self._positions = positions
        self._metrics = metrics
        self._clock = clock

    def make(
        self,
        customer: Customer,
        period: Period,
        *,
        by: str = BY_CALL,
        show: Callable[[int], None] = lambda _percent: None,
    ) -> UsageReport:
        """Make a report.

        Args:
            customer: whose.
            period: its range.
            by: BY_CALL or BY_JOB, for the metric.
            show: takes how far it is, in percent.
        """
        # Before the wait: what is acknowledged during it may still be missing at its end.
        asked_at = self._clock()
        is_complete = self._positions.wait_for_all(_WAIT_SECONDS)
        started, now = time.perf_counter(), self._clock()
        with self._database.autocommit() as conn:
            # The place first: the totals that are read after it can only be newer.
            place = places.rollup(conn).as_of
            as_of = max(place, asked_at) if is_complete else place
            used = figures.used(conn, customer.number)
            asked = scope(conn, customer, period, now=now, as_of=as_of, is_complete=is_complete)
        found = []
        for each in figures.histories(self._database, asked, used):
            found.append(each)
            show(10 + 60 * len(found) // len(used))
        state = brought_up(self._costs, asked)
        grouped = figures.groups(self._database, asked, found)
        starts, days = [each.start for each in asked.periods], asked.days
        with self._database.autocommit() as conn:
            costs = cost_store.of_periods(conn, customer.number, starts, days[0].date, days[-1].date)
            headers = cost_store.headers(conn, customer.number, starts)
            held = quarantine.count_of_customer(conn, customer.number, period.end)
        show(85)
        priced = cost(state, headers, costs)
        report = UsageReport(
            customer_id=customer.id,
            period=period,
            time_zone=customer.time_zone,
            made_at=now,
            meters=figures.meter_reports(asked, found, grouped, costs if priced.state in {"PRICED", "STALE"} else ()),
            cost=priced,
            recommendation=recommendation(self._billing, asked, found),
            compliance=compliance(asked, found, held),
        )
        self._metrics.made(by, time.perf_counter() - started)
        return report
