"""UsageService."""

import grpc

from meterscope.usage.v1 import usage_service_pb2 as pb
from meterscope.usage.v1 import usage_service_pb2_grpc
from services.usage.convert import usage as convert
from services.usage.convert.fields import instant, text
from services.usage.usecases.query import Queries
from services.usage.usecases.seal import Seals


class UsageServicer(usage_service_pb2_grpc.UsageServiceServicer):
    """Answers how much was used, and closes periods."""

    def __init__(self, queries: Queries, seals: Seals) -> None:
        self._queries = queries
        self._seals = seals

    def QueryUsage(self, request: pb.QueryUsageRequest, context: grpc.ServicerContext) -> pb.QueryUsageResponse:
        """Show usage in windows."""
        return convert.usage(self._queries.usage(convert.question(request)))

    def SealUsage(self, request: pb.SealUsageRequest, context: grpc.ServicerContext) -> pb.SealUsageResponse:
        """Close a period."""
        return self._seals.seal(
            text(request.customer_id, "customer_id"),
            instant(request.start_time, "start_time", given=request.HasField("start_time")),
            instant(request.end_time, "end_time", given=request.HasField("end_time")),
            request=request,
            request_id=text(request.request_id, "request_id"),
            encode=convert.sealed,
            response_type=pb.SealUsageResponse,
        )

    def ListLateUsage(
        self, request: pb.ListLateUsageRequest, context: grpc.ServicerContext
    ) -> pb.ListLateUsageResponse:
        """Show what came late for closed periods."""
        customer_id = text(request.customer_id, "customer_id")
        found, token = self._seals.late(customer_id, request.page_size, request.page_token)
        return pb.ListLateUsageResponse(late_usage=map(convert.late_usage, found), next_page_token=token)
