"""LimitService."""

import grpc

from meterscope.usage.v1 import limit_service_pb2 as pb
from meterscope.usage.v1 import limit_service_pb2_grpc
from services.usage.convert import limits as convert
from services.usage.convert.fields import text
from services.usage.usecases.entitlements import EntitlementBook
from services.usage.usecases.limits import Limits
from services.usage.usecases.reservations import Call, Reservations


class LimitServicer(limit_service_pb2_grpc.LimitServiceServicer):
    """Answers limit checks, sets quota aside, and takes entitlements in."""

    def __init__(self, limits: Limits, reservations: Reservations, book: EntitlementBook) -> None:
        self._limits = limits
        self._reservations = reservations
        self._book = book

    def CheckLimit(self, request: pb.CheckLimitRequest, context: grpc.ServicerContext) -> pb.CheckLimitResponse:
        """Say whether more may be used."""
        return convert.check(self._limits.check(convert.question(request)))

    def BatchCheckLimits(
        self, request: pb.BatchCheckLimitsRequest, context: grpc.ServicerContext
    ) -> pb.BatchCheckLimitsResponse:
        """Say it many times."""
        return convert.results(self._limits.check_all(convert.questions(request)))

    def ListLimits(self, request: pb.ListLimitsRequest, context: grpc.ServicerContext) -> pb.ListLimitsResponse:
        """Show a customer's limits."""
        customer_id = text(request.customer_id, "customer_id")
        found, token = self._limits.page(customer_id, request.page_size, request.page_token)
        return pb.ListLimitsResponse(limits=map(convert.check, found), next_page_token=token)

    def ReserveQuota(self, request: pb.ReserveQuotaRequest, context: grpc.ServicerContext) -> pb.Reservation:
        """Set quota aside."""
        return self._reservations.reserve(convert.wanted(request), _call(request))

    def CommitReservation(self, request: pb.CommitReservationRequest, context: grpc.ServicerContext) -> pb.Reservation:
        """Note what became of it."""
        return self._reservations.commit(convert.use(request), _call(request))

    def ReleaseReservation(
        self, request: pb.ReleaseReservationRequest, context: grpc.ServicerContext
    ) -> pb.Reservation:
        """Give it back."""
        text(request.request_id, "request_id")
        customer_id = text(request.customer_id, "customer_id")
        reservation_id = text(request.reservation_id, "reservation_id")
        return self._reservations.release(customer_id, reservation_id, _call(request))

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


def _call(
    request: pb.ReserveQuotaRequest | pb.CommitReservationRequest | pb.ReleaseReservationRequest,
) -> Call[pb.Reservation]:
    return Call(request, request.request_id, convert.reservation, pb.Reservation)
