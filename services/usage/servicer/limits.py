"""LimitService."""

from decimal import Decimal

import grpc

from meterscope.usage.v1 import limit_service_pb2 as pb
from meterscope.usage.v1 import limit_service_pb2_grpc
from services.kit.money import decimal_from_proto
from services.usage.convert import limits as convert
from services.usage.convert.fields import text
from services.usage.usecases.entitlements import EntitlementBook
from services.usage.usecases.limits import Limits


class LimitServicer(limit_service_pb2_grpc.LimitServiceServicer):
    """Answers limit checks, and takes entitlements in."""

    def __init__(self, limits: Limits, book: EntitlementBook) -> None:
        self._limits = limits
        self._book = book

    def CheckLimit(self, request: pb.CheckLimitRequest, context: grpc.ServicerContext) -> pb.CheckLimitResponse:
        """Say whether more may be used."""
        given = request.HasField("quantity")
        quantity = decimal_from_proto(request.quantity, "quantity") if given else Decimal(1)
        found = self._limits.check(text(request.customer_id, "customer_id"), text(request.meter, "meter"), quantity)
        return convert.check(found)

    def ListLimits(self, request: pb.ListLimitsRequest, context: grpc.ServicerContext) -> pb.ListLimitsResponse:
        """Show a customer's limits."""
        customer_id = text(request.customer_id, "customer_id")
        found, token = self._limits.page(customer_id, request.page_size, request.page_token)
        return pb.ListLimitsResponse(limits=map(convert.check, found), next_page_token=token)

    def PutEntitlements(
        self, request: pb.PutEntitlementsRequest, context: grpc.ServicerContext
    ) -> pb.PutEntitlementsResponse:
        """Take entitlements in."""
        return self._book.put(
            convert.entitlements(request),
            request=request,
            request_id=request.request_id,
            encode=lambda revision: pb.PutEntitlementsResponse(revision=revision),
            response_type=pb.PutEntitlementsResponse,
        )
