"""The gRPC entry: decode, one use case, encode."""

from typing import Final

import grpc

from meterscope.payments.v1 import payment_method_service_pb2 as methods_pb
from meterscope.payments.v1 import payment_method_service_pb2_grpc as methods_grpc
from meterscope.payments.v1 import payment_service_pb2 as payments_pb
from meterscope.payments.v1 import payment_service_pb2_grpc as payments_grpc
from services.kit import paging, telemetry
from services.payments import convert
from services.payments.store import PaymentFilter
from services.payments.usecases.methods import PaymentMethods
from services.payments.usecases.payments import Payments

SERVICE_NAMES: Final = tuple(
    descriptor.services_by_name[name].full_name
    for descriptor, name in (
        (methods_pb.DESCRIPTOR, "PaymentMethodService"),
        (payments_pb.DESCRIPTOR, "PaymentService"),
    )
)


class PaymentMethodServicer(methods_grpc.PaymentMethodServiceServicer):
    """PaymentMethodService. See the proto for the contract."""

    def __init__(self, methods: PaymentMethods) -> None:
        self._methods = methods

    def CreatePaymentMethod(
        self, request: methods_pb.CreatePaymentMethodRequest, _context: grpc.ServicerContext
    ) -> methods_pb.PaymentMethod:
        """Add a payment method."""
        wanted = convert.new_method(request)
        with telemetry.customer(wanted.customer_id):
            return self._methods.create(wanted, request)

    def GetPaymentMethod(
        self, request: methods_pb.GetPaymentMethodRequest, _context: grpc.ServicerContext
    ) -> methods_pb.PaymentMethod:
        """Return a payment method."""
        customer_id = convert.text(request.customer_id, "customer_id")
        method_id = convert.text(request.payment_method_id, "payment_method_id")
        return convert.method_message(self._methods.get(customer_id, method_id))

    def ListPaymentMethods(
        self, request: methods_pb.ListPaymentMethodsRequest, _context: grpc.ServicerContext
    ) -> methods_pb.ListPaymentMethodsResponse:
        """List a customer's payment methods."""
        customer_id = convert.text(request.customer_id, "customer_id")
        size = paging.page_size(request.page_size)
        filters = {"customer_id": customer_id}
        found = self._methods.list(customer_id, convert.page_key(request.page_token, filters) or "", size + 1)
        return methods_pb.ListPaymentMethodsResponse(
            payment_methods=[convert.method_message(method) for method in found[:size]],
            next_page_token=paging.encode_token([found[size - 1].id], filters) if len(found) > size else "",
        )


class PaymentServicer(payments_grpc.PaymentServiceServicer):
    """PaymentService. See the proto for the contract."""

    def __init__(self, payments: Payments) -> None:
        self._payments = payments

    def CreatePayment(
        self, request: payments_pb.CreatePaymentRequest, _context: grpc.ServicerContext
    ) -> payments_pb.Payment:
        """Store a payment; a worker collects it."""
        wanted = convert.new_payment(request)
        with telemetry.customer(wanted.customer_id):
            return self._payments.create(wanted, request)

    def GetPayment(self, request: payments_pb.GetPaymentRequest, _context: grpc.ServicerContext) -> payments_pb.Payment:
        """Return a payment with its attempts."""
        return convert.payment_message(self._payments.get(convert.text(request.payment_id, "payment_id")))

    def ListPayments(
        self, request: payments_pb.ListPaymentsRequest, _context: grpc.ServicerContext
    ) -> payments_pb.ListPaymentsResponse:
        """List payments, newest first."""
        wanted = PaymentFilter(
            customer_id=convert.text(request.customer_id, "customer_id", required=False),
            invoice_id=convert.text(request.invoice_id, "invoice_id", required=False),
        )
        size = paging.page_size(request.page_size)
        filters = {"customer_id": wanted.customer_id, "invoice_id": wanted.invoice_id}
        found = self._payments.list(wanted, convert.page_key(request.page_token, filters), size + 1)
        return payments_pb.ListPaymentsResponse(
            payments=[convert.payment_message(payment) for payment in found[:size]],
            next_page_token=paging.encode_token([found[size - 1].id], filters) if len(found) > size else "",
        )
