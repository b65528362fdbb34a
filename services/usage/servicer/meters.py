"""MeterService."""

import grpc

from meterscope.usage.v1 import meter_service_pb2 as pb
from meterscope.usage.v1 import meter_service_pb2_grpc
from services.usage.convert import meters as convert
from services.usage.convert.fields import text
from services.usage.usecases.meters import Meters


class MeterServicer(meter_service_pb2_grpc.MeterServiceServicer):
    """Creates and shows meters."""

    def __init__(self, meters: Meters) -> None:
        self._meters = meters

    def CreateMeter(self, request: pb.CreateMeterRequest, context: grpc.ServicerContext) -> pb.Meter:
        """Create a meter."""
        return convert.encode(self._meters.create(convert.decode(request.meter)))

    def GetMeter(self, request: pb.GetMeterRequest, context: grpc.ServicerContext) -> pb.Meter:
        """Show a meter."""
        return convert.encode(self._meters.get(text(request.meter_id, "meter_id")))

    def ListMeters(self, request: pb.ListMetersRequest, context: grpc.ServicerContext) -> pb.ListMetersResponse:
        """Show the meters."""
        found, token = self._meters.page(request.page_size, request.page_token)
        return pb.ListMetersResponse(meters=map(convert.encode, found), next_page_token=token)
