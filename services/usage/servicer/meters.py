"""MeterService."""

import grpc

from meterscope.usage.v1 import meter_service_pb2 as pb
from meterscope.usage.v1 import meter_service_pb2_grpc
from services.usage.convert import meters as convert
from services.usage.convert.fields import instant, text
from services.usage.usecases.meters import Meters


class MeterServicer(meter_service_pb2_grpc.MeterServiceServicer):
    """Creates, changes and shows meters."""

    def __init__(self, meters: Meters) -> None:
        self._meters = meters

    def CreateMeter(self, request: pb.CreateMeterRequest, context: grpc.ServicerContext) -> pb.Meter:
        """Create a meter."""
        return convert.encode(*self._meters.create(convert.decode(request.meter)))

    def GetMeter(self, request: pb.GetMeterRequest, context: grpc.ServicerContext) -> pb.Meter:
        """Show a meter."""
        return convert.encode(*self._meters.get(text(request.meter_id, "meter_id")))

    def ListMeters(self, request: pb.ListMetersRequest, context: grpc.ServicerContext) -> pb.ListMetersResponse:
        """Show the meters."""
        found, token = self._meters.page(request.page_size, request.page_token)
        return pb.ListMetersResponse(meters=[convert.encode(*each) for each in found], next_page_token=token)

    def UpdateMeter(self, request: pb.UpdateMeterRequest, context: grpc.ServicerContext) -> pb.Meter:
        """Change what people see of a meter."""
        unit = request.unit if request.HasField("unit") else None
        description = request.description if request.HasField("description") else None
        return convert.encode(*self._meters.update(text(request.meter_id, "meter_id"), unit, description))

    def ArchiveMeter(self, request: pb.ArchiveMeterRequest, context: grpc.ServicerContext) -> pb.Meter:
        """Have a meter count nothing more."""
        return convert.encode(*self._meters.archive(text(request.meter_id, "meter_id")))

    def RecountMeter(self, request: pb.RecountMeterRequest, context: grpc.ServicerContext) -> pb.Meter:
        """Set a meter's totals anew."""
        count_from = instant(request.count_from, "count_from") if request.HasField("count_from") else None
        return convert.encode(*self._meters.recount(text(request.meter_id, "meter_id"), count_from))
