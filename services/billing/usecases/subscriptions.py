"""Subscriptions."""

from collections.abc import Callable
from datetime import datetime

import sqlalchemy as sa

from meterscope.billing.v1 import subscription_service_pb2 as pb
from services.billing.convert import customer as convert
from services.billing.convert.times import instant
from services.billing.domain.subscription import PERIODS_AHEAD, Subscription, SubscriptionState, check_start
from services.billing.errors import (
    AlreadySubscribed,
    CurrencyDiffers,
    CustomerNotFound,
    PlanNotFound,
    SubscriptionNotFound,
)
from services.billing.store import customers, plans, subscriptions
from services.billing.usecases import entitlements
from services.kit import paging
from services.kit.db import Database
from services.kit.idempotency import once
from services.kit.ids import new_id
from services.kit.outbox import Outbox


class Subscriptions:
    """Puts customers on plans."""

    def __init__(self, database: Database, outbox: Outbox, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._outbox = outbox
        self._clock = clock

    def create(self, request: pb.CreateSubscriptionRequest) -> pb.Subscription:
        """Subscribe a customer to the newest version of a plan and have usage told of periods and limits.

        Raises:
            InvalidArgument: the start lies ahead or too far back.
            CustomerNotFound, PlanNotFound: no such customer or plan.
            CurrencyDiffers: the plan's prices are in another currency than the customer's.
            AlreadySubscribed: the customer has a running subscription.
        """
        with self._database.transaction() as conn:
            return once(
                conn,
                method="CreateSubscription",
                request_id=request.request_id,
                request=request,
                response_type=pb.Subscription,
                act=lambda: convert.subscription(self._create(conn, request.subscription)),
            )

    def get(self, subscription_id: str) -> Subscription:
        """Return a subscription. Raises SubscriptionNotFound."""
        with self._database.transaction() as conn:
            found = subscriptions.get(conn, subscription_id)
        if found is None:
            raise SubscriptionNotFound(subscription_id)
        return found

    def page(self, *, customer_id: str, page_size: int, page_token: str) -> tuple[list[Subscription], str]:
        """Return a page of subscriptions in the order of their creation, and the next page's token."""
        filters = {"customer_id": customer_id}
        size = paging.page_size(page_size)
        after = paging.decode_token(page_token, filters) or [""]
        with self._database.transaction() as conn:
            found = subscriptions.page(conn, customer_id=customer_id, after=after[0], limit=size + 1)
        return found[:size], paging.encode_token([found[size - 1].id], filters) if len(found) > size else ""

    def _create(self, conn: sa.Connection, wanted: pb.Subscription) -> Subscription:
        now = self._clock()
        start = instant(wanted.start_time, "subscription.start_time") if wanted.HasField("start_time") else now
        check_start(start, now)
        customer = customers.get(conn, wanted.customer_id)
        if customer is None:
            raise CustomerNotFound(wanted.customer_id)
        plan = plans.latest(conn, wanted.plan_id)
        if plan is None:
            raise PlanNotFound(wanted.plan_id)
        if plan.terms.currency != customer.currency:
            raise CurrencyDiffers(customer.currency, plan.terms.currency)
        subscription = Subscription(
            id=new_id("sub"),
            customer_id=customer.id,
            plan_id=plan.terms.id,
            plan_version=plan.version,
            state=SubscriptionState.ACTIVE,
            start_time=start,
            time_zone=customer.time_zone,
            period_number=0,
            create_time=now,
        )
        until = subscription.schedule.around(now, PERIODS_AHEAD)[-1].end
        if not subscriptions.add(conn, subscription, entitled_until=until):
            raise AlreadySubscribed(customer.id)
        entitlements.put(conn, self._outbox, customer, subscription=subscription, plan=plan, now=now)
        return subscription
