"""Prices without an invoice. Nothing is written."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final

import sqlalchemy as sa

from services.billing.domain import preview
from services.billing.domain.plan import Plan
from services.billing.domain.preview import ComponentCost, PlanCost, Preview
from services.billing.errors import CustomerNotFound, NoRunningSubscription, PlanNotFound
from services.billing.store import customers, plans, subscriptions
from services.kit.db import Database

MAX_PLANS: Final = 200


@dataclass(frozen=True)
class PeriodTotals:
    """Running totals of a customer's period, by meter."""

    customer_id: str
    start: datetime
    meters: Mapping[str, Sequence[Decimal]]


@dataclass(frozen=True)
class PeriodCost:
    """What a period's running totals cost. `plan` is None where no subscription runs in the period."""

    plan: Plan | None
    components: Sequence[ComponentCost] = ()


class Prices:
    """Says what usage costs."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def on_plan(self, plan_id: str, quantities: Mapping[str, Decimal]) -> Preview:
        """Price a period's quantities on the newest version of a plan. Raises PlanNotFound."""
        with self._database.transaction() as conn:
            plan = plans.latest(conn, plan_id)
        if plan is None:
            raise PlanNotFound(plan_id)
        return preview.preview(plan, quantities)

    def of_customer(self, customer_id: str, quantities: Mapping[str, Decimal]) -> Preview:
        """Price a period's quantities on a customer's own plan.

        Raises:
            CustomerNotFound: there is no such customer.
            NoRunningSubscription: it is on no plan.
        """
        with self._database.transaction() as conn:
            if customers.get(conn, customer_id) is None:
                raise CustomerNotFound(customer_id)
            plan = _current(conn, customer_id)
        if plan is None:
            raise NoRunningSubscription(customer_id)
        return preview.preview(plan, quantities)

    def running(self, asked: Sequence[PeriodTotals]) -> list[PeriodCost]:
        """Price running totals of many customers, each on the plan of the subscription that runs in the period."""
        with self._database.transaction() as conn:
            found = subscriptions.running_of(conn, {each.customer_id for each in asked})
            versions = plans.versions(conn, {(each.plan_id, each.plan_version) for each in found.values()})
        costs = []
        for each in asked:
            subscription = found.get(each.customer_id)
            if subscription is None or each.start < subscription.start_time:
                costs.append(PeriodCost(None))
                continue
            plan = versions[subscription.plan_id, subscription.plan_version]
            costs.append(PeriodCost(plan, preview.running(plan, each.meters)))
        return costs

    def compare(self, customer_id: str, periods: Sequence[Mapping[str, Decimal]]) -> list[PlanCost]:
        """Price the same periods on each plan in the customer's currency, the cheapest first. Raises CustomerNotFound."""
        with self._database.transaction() as conn:
            customer = customers.get(conn, customer_id)
            if customer is None:
                raise CustomerNotFound(customer_id)
            current = _current(conn, customer_id)
            offered = plans.in_currency(conn, customer.currency, limit=MAX_PLANS)
        if current is not None and current not in offered:
            offered.append(current)
        return preview.compare(offered, current, periods)


def _current(conn: sa.Connection, customer_id: str) -> Plan | None:
    subscription = subscriptions.running(conn, customer_id)
    return None if subscription is None else plans.version(conn, subscription.plan_id, subscription.plan_version)
