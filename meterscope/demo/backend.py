"""The services as the demo calls them."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from decimal import Decimal
from types import TracebackType
from typing import Any, Self

from google.protobuf.message import Message
from google.type.money_pb2 import Money

from meterscope.alerts.v1 import alert_service_pb2_grpc, channel_service_pb2_grpc, notification_service_pb2_grpc
from meterscope.billing.v1 import (
    bill_run_service_pb2_grpc,
    customer_service_pb2_grpc,
    invoice_service_pb2_grpc,
    ledger_service_pb2_grpc,
    subscription_service_pb2_grpc,
)
from meterscope.connection import open_channel
from meterscope.payments.v1 import payment_method_service_pb2_grpc, payment_service_pb2_grpc
from meterscope.usage.v1 import event_service_pb2_grpc, limit_service_pb2_grpc, usage_service_pb2_grpc

_PAGE = 1_000


class Backend:
    """Stubs to all services; a context manager that closes their channels."""

    def __init__(self, addresses: Mapping[str, str], *, token: str | None) -> None:
        self._channels = ExitStack()
        self.gateway = f"http://{addresses['gateway']}"
        self.usage_address = addresses["usage"]
        self.token = token
        self.usage_channel = self._channels.enter_context(open_channel(addresses["usage"], token=token))
        billing = self._channels.enter_context(open_channel(addresses["billing"], token=token))
        payments = self._channels.enter_context(open_channel(addresses["payments"], token=token))
        alerts = self._channels.enter_context(open_channel(addresses["alerts"], token=token))
        self.events = event_service_pb2_grpc.EventServiceStub(self.usage_channel)
        self.limits = limit_service_pb2_grpc.LimitServiceStub(self.usage_channel)
        self.usage = usage_service_pb2_grpc.UsageServiceStub(self.usage_channel)
        self.customers = customer_service_pb2_grpc.CustomerServiceStub(billing)
        self.subscriptions = subscription_service_pb2_grpc.SubscriptionServiceStub(billing)
        self.bill_runs = bill_run_service_pb2_grpc.BillRunServiceStub(billing)
        self.invoices = invoice_service_pb2_grpc.InvoiceServiceStub(billing)
        self.ledger = ledger_service_pb2_grpc.LedgerServiceStub(billing)
        self.payment_methods = payment_method_service_pb2_grpc.PaymentMethodServiceStub(payments)
        self.payments = payment_service_pb2_grpc.PaymentServiceStub(payments)
        self.alerts = alert_service_pb2_grpc.AlertServiceStub(alerts)
        self.channels = channel_service_pb2_grpc.ChannelServiceStub(alerts)
        self.notifications = notification_service_pb2_grpc.NotificationServiceStub(alerts)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._channels.close()


def pages(method: Callable[[Any], Any], request: Message, field: str) -> Iterator[Any]:
    """Return the items of all pages of a list method; `field` holds them in its response."""
    token = ""
    while True:
        page = type(request)()
        page.CopyFrom(request)
        page.MergeFrom(type(request)(page_size=_PAGE, page_token=token))
        response = method(page)
        yield from getattr(response, field)
        token = response.next_page_token
        if not token:
            return


def decimal(money: Money) -> Decimal:
    """Return an amount of money as a decimal."""
    return Decimal(money.units) + Decimal(money.nanos) / 10**9
