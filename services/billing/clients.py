"""The services that billing calls. What changes something carries a request id: however often it is sent, it acts once."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, cast

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from meterscope.alerts.v1 import alert_service_pb2, alert_service_pb2_grpc
from meterscope.payments.v1 import payment_service_pb2, payment_service_pb2_grpc
from meterscope.usage.v1 import (
    event_service_pb2,
    event_service_pb2_grpc,
    limit_service_pb2,
    limit_service_pb2_grpc,
    meter_service_pb2,
    meter_service_pb2_grpc,
    usage_service_pb2,
    usage_service_pb2_grpc,
)
from services.billing.convert import usage as convert
from services.billing.convert.times import timestamp
from services.billing.domain.invoice import Invoice
from services.billing.domain.period import Period
from services.billing.domain.seal import Seal
from services.billing.errors import InvoiceCollectedElsewhere, PaymentMethodMissing, PeerRefused
from services.kit.errors import Unavailable
from services.kit.money import Money, money_to_proto

# A seal waits until the rollup has passed it.
_SEAL_SECONDS: Final = 30.0
_AWAY: Final = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


class Usage:
    """The usage service."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._limits = limit_service_pb2_grpc.LimitServiceStub(channel)
        self._usage = usage_service_pb2_grpc.UsageServiceStub(channel)
        self._events = event_service_pb2_grpc.EventServiceStub(channel)
        self._meters = meter_service_pb2_grpc.MeterServiceStub(channel)

    def put_entitlements(self, request: limit_service_pb2.PutEntitlementsRequest) -> None:
        """Tell usage what it needs to know of a customer."""
        with _calling("usage"):
            self._limits.PutEntitlements(request)

    def seal(self, customer_id: str, period: Period, request_id: str) -> Seal:
        """Close a period of a customer and return its totals."""
        request = usage_service_pb2.SealUsageRequest(
            customer_id=customer_id,
            start_time=timestamp(period.start),
            end_time=timestamp(period.end),
            request_id=request_id,
        )
        with _calling("usage"):
            return convert.seal(self._usage.SealUsage(request, timeout=_SEAL_SECONDS))

    def meter(self, meter_id: str) -> meter_service_pb2.Meter:
        """Return a meter."""
        with _calling("usage"):
            return self._meters.GetMeter(meter_service_pb2.GetMeterRequest(meter_id=meter_id))

    def events(
        self, customer_id: str, period: Period, meter_id: str, *, page_size: int, page_token: str
    ) -> event_service_pb2.ListEventsResponse:
        """Return a page of a customer's events that a meter counts, oldest first."""
        request = event_service_pb2.ListEventsRequest(
            customer_id=customer_id,
            start_time=timestamp(period.start),
            end_time=timestamp(period.end),
            meter=meter_id,
            page_size=page_size,
            page_token=page_token,
        )
        with _calling("usage"):
            return self._events.ListEvents(request)


class Payments:
    """The payments service."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._payments = payment_service_pb2_grpc.PaymentServiceStub(channel)

    def collect(self, invoice: Invoice, request_id: str) -> str:
        """Have what is due of an invoice collected; return the payment's id.

        Raises:
            PaymentMethodMissing: the customer has no payment method yet.
            InvoiceCollectedElsewhere: a payment of the invoice is under way or done that is not billing's own.
        """
        request = payment_service_pb2.CreatePaymentRequest(
            payment=payment_service_pb2.Payment(
                customer_id=invoice.customer_id,
                invoice_id=invoice.id,
                amount=money_to_proto(Money(invoice.amount_due, invoice.currency)),
            ),
            request_id=request_id,
        )
        try:
            with _calling("payments"):
                return self._payments.CreatePayment(request).id
        except PeerRefused as refused:
            if refused.peer_reason == "NO_PAYMENT_METHOD":
                raise PaymentMethodMissing(refused.message) from refused
            # Under this id another amount is collected: what was due before a part of it came in.
            if refused.peer_reason in {"INVOICE_ALREADY_COLLECTED", "REQUEST_ID_REUSED"}:
                raise InvoiceCollectedElsewhere(refused.message) from refused
            raise


class Alerts:
    """The alerts service."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._alerts = alert_service_pb2_grpc.AlertServiceStub(channel)

    def raise_signal(self, request: alert_service_pb2.RaiseSignalRequest) -> None:
        """Tell what people should know."""
        with _calling("alerts"):
            self._alerts.RaiseSignal(request)


class Peers:
    """The services that billing calls, and the channels to close at the end."""

    def __init__(self, *, usage: grpc.Channel, payments: grpc.Channel, alerts: grpc.Channel) -> None:
        self.usage = Usage(usage)
        self.payments = Payments(payments)
        self.alerts = Alerts(alerts)
        self._channels = (usage, payments, alerts)

    def close(self) -> None:
        """Close the channels."""
        for channel in self._channels:
            channel.close()


@contextmanager
def _calling(peer: str) -> Iterator[None]:
    try:
        yield
    except grpc.RpcError as error:
        call = cast("grpc.Call", error)
        code, details = call.code(), call.details() or "no details"
        if code in _AWAY:
            raise Unavailable(f"the {peer} service cannot be reached: {details}", reason="PEER_AWAY") from error
        raise PeerRefused(peer, code.name, details, _reason(call)) from error


def _reason(call: grpc.Call) -> str:
    status, info = rpc_status.from_call(call), error_details_pb2.ErrorInfo()
    reasons = [str(info.reason) for detail in status.details if detail.Unpack(info)] if status else []
    return reasons[0] if reasons else ""
