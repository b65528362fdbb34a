"""Subscriptions, their periods, and what usage is told of them."""

import grpc
import pytest
from billing_harness import Client, Clock, reason, timestamp, until, utc, violations
from billing_peers import Peers

from meterscope.billing.v1 import catalog_service_pb2
from meterscope.billing.v1 import subscription_service_pb2 as pb
from services.billing.clients import Usage
from services.billing.usecases.entitlements import Entitlements
from services.kit.channel import open_channel
from services.kit.config import KitSettings
from services.kit.db import Database
from services.kit.outbox import Outbox

pytestmark = pytest.mark.usefixtures("worker")


@pytest.fixture(scope="module")
def plan(client: Client) -> catalog_service_pb2.Plan:
    return client.plan()


def test_periods_begin_at_the_local_anchor(client: Client, plan: catalog_service_pb2.Plan) -> None:
    # Midnight of 1 May in Kolkata is 18:30 UTC of 30 April.
    subscription = client.subscribe(client.customer(), plan, "2026-04-30T18:30")
    assert subscription.state == pb.SUBSCRIPTION_STATE_ACTIVE
    assert subscription.plan_version == 1
    assert subscription.current_period.start_time == timestamp("2026-04-30T18:30")
    assert subscription.current_period.end_time == timestamp("2026-05-31T18:30")
    assert client.subscriptions.GetSubscription(pb.GetSubscriptionRequest(subscription_id=subscription.id)) == (
        subscription
    )


def test_without_a_start_it_starts_now(client: Client, plan: catalog_service_pb2.Plan) -> None:
    wanted = pb.Subscription(customer_id=client.customer().id, plan_id=plan.id)
    subscription = client.subscriptions.CreateSubscription(pb.CreateSubscriptionRequest(subscription=wanted))
    assert subscription.start_time == timestamp("2026-06-10T12:00")


def test_usage_is_told_of_limits_and_of_periods_until_two_ahead(
    client: Client, peers: Peers, plan: catalog_service_pb2.Plan
) -> None:
    customer = client.customer(external_key="told")
    client.subscribe(customer, plan, "2026-04-30T18:30")
    told = until(lambda: peers.usage.told_of(customer.id), lambda found: len(found) == 2)[-1]
    assert (told.revision, told.has_plan, list(told.customer_keys)) == (2, True, ["told"])
    # It is 10 June: May, June, and two ahead.
    assert [period.start_time for period in told.periods] == [
        timestamp(text) for text in ("2026-04-30T18:30", "2026-05-31T18:30", "2026-06-30T18:30", "2026-07-31T18:30")
    ]
    assert told.periods[-1].end_time == timestamp("2026-08-31T18:30")
    (limit,) = told.limits
    assert (limit.meter, limit.limit.value, list(limit.thresholds)) == ("requests", "500", [80, 95, 100])


def test_usage_is_told_of_further_periods_as_time_goes_on(
    client: Client, peers: Peers, clock: Clock, database: Database, plan: catalog_service_pb2.Plan
) -> None:
    customer = client.customer()
    client.subscribe(customer, plan, "2026-05-31T18:30")
    until(lambda: peers.usage.told_of(customer.id), lambda found: len(found) == 2)
    with open_channel(peers.address, KitSettings()) as channel:
        entitlements = Entitlements(database, Outbox(database), Usage(channel))
        assert entitlements.extend(clock.now) == 0
        entitlements.extend(utc("2026-07-31T00:00"))
        told = until(lambda: peers.usage.told_of(customer.id), lambda found: len(found) == 3)[-1]
        assert entitlements.extend(utc("2026-07-31T00:00")) == 0
    # July is running: August and September ahead, until 30 September, 18:30 UTC.
    assert told.periods[-1].end_time == timestamp("2026-09-30T18:30")
    assert told.revision == 3


def test_a_customer_has_one_running_subscription(client: Client, plan: catalog_service_pb2.Plan) -> None:
    customer = client.customer()
    client.subscribe(customer, plan, "2026-05-01T00:00")
    with pytest.raises(grpc.RpcError) as refused:
        client.subscribe(customer, plan, "2026-05-02T00:00")
    assert refused.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert reason(refused.value) == "ALREADY_SUBSCRIBED"


def test_a_repeated_request_gets_the_first_subscription(client: Client, plan: catalog_service_pb2.Plan) -> None:
    wanted = pb.Subscription(customer_id=client.customer().id, plan_id=plan.id)
    request = pb.CreateSubscriptionRequest(subscription=wanted, request_id="subscribe-once")
    assert client.subscriptions.CreateSubscription(request) == client.subscriptions.CreateSubscription(request)


def test_the_plan_must_be_in_the_customers_currency(client: Client, plan: catalog_service_pb2.Plan) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        client.subscribe(client.customer(currency="USD"), plan, "2026-05-01T00:00")
    assert refused.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert reason(refused.value) == "CURRENCY_DIFFERS"


@pytest.mark.parametrize(
    ("customer_id", "plan_id", "expected"),
    [("cus_nobody", "", "CUSTOMER_NOT_FOUND"), ("", "nowhere", "PLAN_NOT_FOUND")],
)
def test_customer_and_plan_must_exist(
    client: Client, plan: catalog_service_pb2.Plan, customer_id: str, plan_id: str, expected: str
) -> None:
    wanted = pb.Subscription(customer_id=customer_id or client.customer().id, plan_id=plan_id or plan.id)
    with pytest.raises(grpc.RpcError) as refused:
        client.subscriptions.CreateSubscription(pb.CreateSubscriptionRequest(subscription=wanted))
    assert refused.value.code() == grpc.StatusCode.NOT_FOUND
    assert reason(refused.value) == expected


@pytest.mark.parametrize("start", ["2026-06-10T12:00:01", "2025-05-06T11:59:59"])
def test_a_start_lies_neither_ahead_nor_more_than_400_days_back(
    client: Client, plan: catalog_service_pb2.Plan, start: str
) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        client.subscribe(client.customer(), plan, start)
    assert set(violations(refused.value)) == {"subscription.start_time"}


def test_a_start_400_days_back_is_taken(client: Client, plan: catalog_service_pb2.Plan) -> None:
    client.subscribe(client.customer(), plan, "2025-05-06T12:00")


def test_subscriptions_are_listed_by_customer(client: Client, plan: catalog_service_pb2.Plan) -> None:
    customer = client.customer()
    subscription = client.subscribe(customer, plan, "2026-06-01T00:00")
    found = client.subscriptions.ListSubscriptions(pb.ListSubscriptionsRequest(customer_id=customer.id))
    assert list(found.subscriptions) == [subscription]
