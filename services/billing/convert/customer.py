"""Customers and subscriptions."""

from meterscope.billing.v1 import customer_service_pb2, subscription_service_pb2
from services.billing.convert.times import interval, timestamp
from services.billing.domain.customer import Customer
from services.billing.domain.subscription import Subscription


def customer(value: Customer) -> customer_service_pb2.Customer:
    """Encode a customer."""
    return customer_service_pb2.Customer(
        id=value.id,
        external_key=value.external_key,
        display_name=value.display_name,
        state=customer_service_pb2.CustomerState.Value(f"CUSTOMER_STATE_{value.state}"),
        currency=value.currency,
        time_zone=value.time_zone,
        create_time=timestamp(value.create_time),
    )


def subscription(value: Subscription) -> subscription_service_pb2.Subscription:
    """Encode a subscription."""
    return subscription_service_pb2.Subscription(
        id=value.id,
        customer_id=value.customer_id,
        plan_id=value.plan_id,
        plan_version=value.plan_version,
        state=subscription_service_pb2.SubscriptionState.Value(f"SUBSCRIPTION_STATE_{value.state}"),
        start_time=timestamp(value.start_time),
        current_period=interval(value.current_period),
        create_time=timestamp(value.create_time),
    )
