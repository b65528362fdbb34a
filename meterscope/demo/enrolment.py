"""Makes what the traffic needs before it comes: meters, a plan, a channel, customers who pay. Each once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

import grpc
import httpx
from opentelemetry import propagate

from meterscope import logimport
from meterscope.alerts.v1 import channel_service_pb2 as channels
from meterscope.billing.v1 import customer_service_pb2 as customers
from meterscope.billing.v1 import subscription_service_pb2 as subscriptions
from meterscope.demo import waiting
from meterscope.demo.backend import Backend, pages
from meterscope.demo.errors import DemoFailed
from meterscope.demo.month import Month
from meterscope.demo.state import State
from meterscope.payments.v1 import payment_method_service_pb2 as methods
from meterscope.usage.v1 import limit_service_pb2 as limits

_KNOWN_SECONDS = 15.0
_GOOD = "sandbox_ok"
_DECLINED_ONCE = "sandbox_insufficient_funds_once"


@dataclass
class Enrolment:
    """Who the customers are.

    Attributes:
        ids: customer ids by external key.
        created: how many this run created.
    """

    ids: dict[str, str] = field(default_factory=dict)
    created: int = 0


def prepare(backend: Backend, state: State, plan: Mapping[str, Any]) -> None:
    """Create the meters, by gRPC, and the plan, by REST, unless they are there.

    Raises:
        DemoFailed: the plan is refused, with the gateway's reason.
    """
    logimport.create_meters(backend.usage_channel)
    headers = {"Idempotency-Key": state.request_id("plan")}
    propagate.inject(headers)
    answer = httpx.post(f"{backend.gateway}/v1/plans", json=plan, headers=headers, timeout=10)
    if answer.is_error:
        raise DemoFailed(f"POST /v1/plans answered {answer.status_code}: {answer.text}")


def find_channel(backend: Backend, url: str) -> str:
    """Return the id of the webhook channel with this URL, empty if there is none."""
    found = pages(backend.channels.ListChannels, channels.ListChannelsRequest(), "channels")
    return next((channel.id for channel in found if channel.url == url), "")


def create_channel(backend: Backend, state: State, url: str) -> str:
    """Create the webhook channel and return its id.

    Raises:
        DemoFailed: it is refused, mostly because `up` was started without leave for private addresses.
    """
    channel = channels.Channel(
        kind=channels.CHANNEL_KIND_WEBHOOK, display_name="Demo's receiver", url=url, secret=state.webhook_secret
    )
    try:
        request_id = state.request_id("channel", url)
        return backend.channels.CreateChannel(channels.CreateChannelRequest(channel=channel, request_id=request_id)).id
    except grpc.RpcError as error:
        raise DemoFailed(
            f"the webhook {url} is refused: {error.details()}\nThe demo receives on loopback: start `meterscope up` "
            "with METERSCOPE_ALLOW_PRIVATE_WEBHOOKS=true, or stop it and let the demo start it"
        ) from error


def find_customer(backend: Backend, key: str) -> str:
    """Return the id of the customer with this external key, empty if there is none."""
    found = backend.customers.ListCustomers(customers.ListCustomersRequest(external_key=key)).customers
    return found[0].id if found else ""


def enrol(backend: Backend, state: State, plan: Mapping[str, Any], keys: Sequence[str]) -> Enrolment:
    """Create customers with a payment method and a subscription from the month's beginning, unless they are there.

    Returns when usage knows them with their limits.
    """
    enrolment = Enrolment()
    start = Month.parse(state.month, state.zone).start
    for key in keys:
        customer_id = find_customer(backend, key)
        enrolment.created += not customer_id
        enrolment.ids[key] = customer_id or _create_customer(backend, state, plan, key)
        token = _DECLINED_ONCE if key == state.declined else _GOOD
        _ensure_method(backend, state, enrolment.ids[key], token)
        _ensure_subscription(backend, state, enrolment.ids[key], plan["id"], start)
    for key, customer_id in enrolment.ids.items():
        waiting.until(f"usage knows customer {key}", partial(_is_known, backend, customer_id), seconds=_KNOWN_SECONDS)
    return enrolment


def _create_customer(backend: Backend, state: State, plan: Mapping[str, Any], key: str) -> str:
    customer = customers.Customer(
        external_key=key, display_name=f"Client {key}", currency=plan["currency"], time_zone=state.zone
    )
    request = customers.CreateCustomerRequest(customer=customer, request_id=state.request_id("customer", key))
    return backend.customers.CreateCustomer(request).id


def _ensure_method(backend: Backend, state: State, customer_id: str, token: str) -> None:
    listed = backend.payment_methods.ListPaymentMethods(methods.ListPaymentMethodsRequest(customer_id=customer_id))
    if listed.payment_methods:
        return
    backend.payment_methods.CreatePaymentMethod(
        methods.CreatePaymentMethodRequest(
            customer_id=customer_id,
            payment_method=methods.PaymentMethod(provider="sandbox", provider_token=token, is_default=True),
            request_id=state.request_id("method", customer_id),
        )
    )


def _ensure_subscription(backend: Backend, state: State, customer_id: str, plan_id: str, start: datetime) -> None:
    request = subscriptions.ListSubscriptionsRequest(customer_id=customer_id)
    if backend.subscriptions.ListSubscriptions(request).subscriptions:
        return
    subscription = subscriptions.Subscription(customer_id=customer_id, plan_id=plan_id)
    subscription.start_time.FromDatetime(start.astimezone(UTC))
    backend.subscriptions.CreateSubscription(
        subscriptions.CreateSubscriptionRequest(
            subscription=subscription, request_id=state.request_id("subscription", customer_id)
        )
    )


def _is_known(backend: Backend, customer_id: str) -> bool:
    try:
        return bool(backend.limits.ListLimits(limits.ListLimitsRequest(customer_id=customer_id)).limits)
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.NOT_FOUND:
            return False
        raise
