"""The services that billing calls: small real gRPC servicers that keep what they are told."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import grpc
from google.type import decimal_pb2

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
from services.kit.errors import FailedPrecondition, ServiceError
from services.kit.status import to_status


def sealed(meter: str, value: str, *, events: int = 1, traces: Iterable[str] = ()) -> usage_service_pb2.SealedTotal:
    return usage_service_pb2.SealedTotal(
        meter=meter,
        value=decimal_pb2.Decimal(value=value),
        event_count=events,
        sample_trace_ids=traces,
        event_type="http.request",
        unit="requests" if meter == "requests" else "By",
    )


@dataclass
class Usage(
    limit_service_pb2_grpc.LimitServiceServicer,
    usage_service_pb2_grpc.UsageServiceServicer,
    event_service_pb2_grpc.EventServiceServicer,
    meter_service_pb2_grpc.MeterServiceServicer,
):
    """The edge to usage: seals what the test says was used, and keeps what it is told."""

    totals: dict[str, list[usage_service_pb2.SealedTotal]] = field(default_factory=dict)
    late: dict[str, list[usage_service_pb2.LateUsage]] = field(default_factory=dict)
    listed: dict[str, list[event_service_pb2.Event]] = field(default_factory=dict)
    failing: set[str] = field(default_factory=set)
    told: list[limit_service_pb2.PutEntitlementsRequest] = field(default_factory=list)
    seals: list[usage_service_pb2.SealUsageRequest] = field(default_factory=list)

    def PutEntitlements(
        self, request: limit_service_pb2.PutEntitlementsRequest, _context: grpc.ServicerContext
    ) -> limit_service_pb2.PutEntitlementsResponse:
        self.told.append(request)
        return limit_service_pb2.PutEntitlementsResponse(revision=request.revision)

    def SealUsage(
        self, request: usage_service_pb2.SealUsageRequest, context: grpc.ServicerContext
    ) -> usage_service_pb2.SealUsageResponse:
        self.seals.append(request)
        if request.customer_id in self.failing:
            context.abort(grpc.StatusCode.NOT_FOUND, f"there is no customer {request.customer_id}")
        return usage_service_pb2.SealUsageResponse(
            seal_id=f"seal_{request.end_time.seconds}",
            totals=self.totals.get(request.customer_id, []),
            late_usage=self.late.get(request.customer_id, []),
        )

    def GetMeter(
        self, request: meter_service_pb2.GetMeterRequest, _context: grpc.ServicerContext
    ) -> meter_service_pb2.Meter:
        if request.meter_id == "requests":
            return meter_service_pb2.Meter(
                id="requests", event_type="http.request", aggregation=meter_service_pb2.AGGREGATION_COUNT
            )
        return meter_service_pb2.Meter(
            id="bytes", event_type="http.request", aggregation=meter_service_pb2.AGGREGATION_SUM, quantity="bytes"
        )

    def ListEvents(
        self, request: event_service_pb2.ListEventsRequest, _context: grpc.ServicerContext
    ) -> event_service_pb2.ListEventsResponse:
        first = int(request.page_token or 0)
        of_period = [
            event
            for event in self.listed.get(request.customer_id, [])
            if request.start_time.seconds <= event.time.seconds < request.end_time.seconds
            and request.meter in {"requests", "bytes"}
            and event.type == "http.request"
        ]
        last = first + request.page_size
        return event_service_pb2.ListEventsResponse(
            events=of_period[first:last], next_page_token=str(last) if last < len(of_period) else ""
        )

    def told_of(self, customer_id: str) -> list[limit_service_pb2.PutEntitlementsRequest]:
        return [request for request in self.told if request.customer_id == customer_id]


@dataclass
class Payments(payment_service_pb2_grpc.PaymentServiceServicer):
    """The edge to payments: keeps what it is asked to collect."""

    asked: list[payment_service_pb2.CreatePaymentRequest] = field(default_factory=list)
    refused: list[payment_service_pb2.CreatePaymentRequest] = field(default_factory=list)
    without_method: set[str] = field(default_factory=set)
    collected_elsewhere: dict[str, ServiceError] = field(default_factory=dict)

    def CreatePayment(
        self, request: payment_service_pb2.CreatePaymentRequest, context: grpc.ServicerContext
    ) -> payment_service_pb2.Payment:
        if request.payment.customer_id in self.without_method:
            refusal = FailedPrecondition("the customer has no payment method", reason="NO_PAYMENT_METHOD")
            context.abort_with_status(to_status(refusal))
        if request.payment.customer_id in self.collected_elsewhere:
            self.refused.append(request)
            context.abort_with_status(to_status(self.collected_elsewhere[request.payment.customer_id]))
        self.asked.append(request)
        return payment_service_pb2.Payment(id=f"pay_of_{request.payment.invoice_id}")

    def of(self, invoice_id: str) -> list[payment_service_pb2.CreatePaymentRequest]:
        return [request for request in self.asked if request.payment.invoice_id == invoice_id]


@dataclass
class Alerts(alert_service_pb2_grpc.AlertServiceServicer):
    """The edge to alerts: keeps what it is told."""

    raised: list[alert_service_pb2.RaiseSignalRequest] = field(default_factory=list)

    def RaiseSignal(
        self, request: alert_service_pb2.RaiseSignalRequest, _context: grpc.ServicerContext
    ) -> alert_service_pb2.Alert:
        self.raised.append(request)
        return alert_service_pb2.Alert(fingerprint=request.fingerprint)

    def of(self, fingerprint: str) -> list[alert_service_pb2.RaiseSignalRequest]:
        return [request for request in self.raised if request.fingerprint == fingerprint]


@dataclass(frozen=True)
class Peers:
    usage: Usage
    payments: Payments
    alerts: Alerts
    address: str
