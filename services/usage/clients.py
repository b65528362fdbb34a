"""The services that usage calls. Each call carries the outbox row's id: however often it is made, it counts once."""

import grpc

from meterscope.alerts.v1 import alert_service_pb2, alert_service_pb2_grpc


class Alerts:
    """The alerts service."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._alerts = alert_service_pb2_grpc.AlertServiceStub(channel)

    def raise_signal(self, request: alert_service_pb2.RaiseSignalRequest, request_id: str) -> None:
        """Tell what people should know."""
        request.request_id = request_id
        self._alerts.RaiseSignal(request)
