"""What tests of the payments service hold in their hands: its client, and the services that it calls."""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import grpc
from eventually import eventually
from google.type import money_pb2

from meterscope.alerts.v1 import alert_service_pb2, alert_service_pb2_grpc
from meterscope.billing.v1 import invoice_service_pb2, invoice_service_pb2_grpc
from meterscope.payments.v1 import payment_method_service_pb2 as methods_pb
from meterscope.payments.v1 import payment_method_service_pb2_grpc as methods_grpc
from meterscope.payments.v1 import payment_service_pb2 as payments_pb
from meterscope.payments.v1 import payment_service_pb2_grpc as payments_grpc
from services.kit.ids import new_id
from services.kit.worker import Worker
from services.payments.providers.base import Provider

StartWorker = Callable[[Mapping[str, Provider] | None], Worker]

_requests = itertools.count(1)


@dataclass
class Billing(invoice_service_pb2_grpc.InvoiceServiceServicer):
    """The edge to billing: keeps what it is told."""

    recorded: list[invoice_service_pb2.RecordPaymentRequest] = field(default_factory=list)

    def RecordPayment(
        self, request: invoice_service_pb2.RecordPaymentRequest, _context: grpc.ServicerContext
    ) -> invoice_service_pb2.Invoice:
        self.recorded.append(request)
        return invoice_service_pb2.Invoice(id=request.invoice_id)

    def of(self, payment: str) -> list[invoice_service_pb2.RecordPaymentRequest]:
        return [request for request in self.recorded if request.payment_id == payment]


@dataclass
class Alerts(alert_service_pb2_grpc.AlertServiceServicer):
    """The edge to alerts: keeps what it is told."""

    raised: list[alert_service_pb2.RaiseSignalRequest] = field(default_factory=list)

    def RaiseSignal(
        self, request: alert_service_pb2.RaiseSignalRequest, _context: grpc.ServicerContext
    ) -> alert_service_pb2.Alert:
        self.raised.append(request)
        return alert_service_pb2.Alert(fingerprint=request.fingerprint)

    def of(self, payment: str) -> list[alert_service_pb2.RaiseSignalRequest]:
        return [request for request in self.raised if request.data["payment_id"] == payment]


@dataclass(frozen=True)
class Peers:
    billing: Billing
    alerts: Alerts
    address: str


@dataclass(frozen=True)
class Client:
    """Calls the service as billing and the gateway do."""

    methods: methods_grpc.PaymentMethodServiceStub
    payments: payments_grpc.PaymentServiceStub

    def add_method(self, token: str, customer: str | None = None) -> methods_pb.PaymentMethod:
        method = methods_pb.PaymentMethod(provider="sandbox", provider_token=token)
        return self.methods.CreatePaymentMethod(
            methods_pb.CreatePaymentMethodRequest(customer_id=customer or new_id("cus"), payment_method=method)
        )

    def request(self, customer: str, *, invoice: str = "", units: int = 1234) -> payments_pb.CreatePaymentRequest:
        return payments_pb.CreatePaymentRequest(
            payment=payments_pb.Payment(
                customer_id=customer,
                invoice_id=invoice,
                amount=money_pb2.Money(currency_code="INR", units=units, nanos=500_000_000),
            ),
            request_id=f"request-{next(_requests)}",
        )

    def pay(self, token: str, *, invoice: str = "") -> payments_pb.Payment:
        """Have a new customer pay INR 1,234.50 by a method of this token."""
        customer = self.add_method(token).customer_id
        return self.payments.CreatePayment(self.request(customer, invoice=invoice))

    def until(self, payment_id: str, *states: payments_pb.PaymentState.ValueType) -> payments_pb.Payment:
        """Wait until the payment is in one of the states, and return it."""

        def reached() -> payments_pb.Payment | None:
            payment = self.payments.GetPayment(payments_pb.GetPaymentRequest(payment_id=payment_id))
            return payment if payment.state in states else None

        payment = eventually(reached)
        assert payment is not None
        return payment
