"""The gRPC entry: decode, one use case, encode."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from datetime import datetime
from typing import Final

import grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as otlp_pb
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc as otlp_grpc

from meterscope.alerts.v1 import alert_service_pb2 as alerts_pb
from meterscope.alerts.v1 import alert_service_pb2_grpc as alerts_grpc
from meterscope.alerts.v1 import channel_service_pb2 as channels_pb
from meterscope.alerts.v1 import channel_service_pb2_grpc as channels_grpc
from meterscope.alerts.v1 import metrics_service_pb2 as metrics_pb
from meterscope.alerts.v1 import metrics_service_pb2_grpc as metrics_grpc
from meterscope.alerts.v1 import notification_service_pb2 as notifications_pb
from meterscope.alerts.v1 import notification_service_pb2_grpc as notifications_grpc
from services.alerts import convert
from services.alerts.domain.alert import LinkBases
from services.alerts.sink.latest import Latest
from services.alerts.usecases.alert import Alerts
from services.alerts.usecases.channel import Channels
from services.alerts.usecases.notification import Notifications
from services.kit import telemetry

SERVICE_NAMES: Final = tuple(
    descriptor.services_by_name[name].full_name
    for descriptor, name in (
        (alerts_pb.DESCRIPTOR, "AlertService"),
        (channels_pb.DESCRIPTOR, "ChannelService"),
        (metrics_pb.DESCRIPTOR, "MetricsService"),
        (notifications_pb.DESCRIPTOR, "NotificationService"),
        (otlp_pb.DESCRIPTOR, "MetricsService"),
    )
)


class AlertServicer(alerts_grpc.AlertServiceServicer):
    """AlertService. See the proto for the contract."""

    def __init__(self, alerts: Alerts, *, links: LinkBases, clock: Callable[[], datetime]) -> None:
        self._alerts = alerts
        self._links = links
        self._clock = clock

    def RaiseSignal(self, request: alerts_pb.RaiseSignalRequest, _context: grpc.ServicerContext) -> alerts_pb.Alert:
        """Take a signal."""
        now, trace_id = self._clock(), telemetry.current_trace_id()
        signal = convert.signal_from_proto(request, now=now, trace_id=trace_id)
        with telemetry.customer(signal.customer_id) if signal.customer_id else nullcontext():
            return self._alerts.raise_signal(signal, request)

    def GetAlert(self, request: alerts_pb.GetAlertRequest, _context: grpc.ServicerContext) -> alerts_pb.Alert:
        """Return an alert."""
        return convert.alert_to_proto(self._alerts.get(request.alert_id), self._links)

    def ListAlerts(
        self, request: alerts_pb.ListAlertsRequest, _context: grpc.ServicerContext
    ) -> alerts_pb.ListAlertsResponse:
        """List alerts, newest first."""
        found, next_page_token = self._alerts.list(
            customer_id=request.customer_id,
            type_=request.type,
            state=convert.alert_state_from_proto(request.state),
            page_size=request.page_size,
            page_token=request.page_token,
        )
        alerts = [convert.alert_to_proto(alert, self._links) for alert in found]
        return alerts_pb.ListAlertsResponse(alerts=alerts, next_page_token=next_page_token)


class ChannelServicer(channels_grpc.ChannelServiceServicer):
    """ChannelService. See the proto for the contract."""

    def __init__(self, channels: Channels) -> None:
        self._channels = channels

    def CreateChannel(
        self, request: channels_pb.CreateChannelRequest, _context: grpc.ServicerContext
    ) -> channels_pb.Channel:
        """Add a channel."""
        return self._channels.create(convert.channel_kind_from_proto(request.channel.kind), request)

    def GetChannel(self, request: channels_pb.GetChannelRequest, _context: grpc.ServicerContext) -> channels_pb.Channel:
        """Return a channel."""
        return convert.channel_to_proto(self._channels.get(request.channel_id))

    def ListChannels(
        self, request: channels_pb.ListChannelsRequest, _context: grpc.ServicerContext
    ) -> channels_pb.ListChannelsResponse:
        """List channels in the order of their creation."""
        found, next_page_token = self._channels.list(page_size=request.page_size, page_token=request.page_token)
        channels = [convert.channel_to_proto(channel) for channel in found]
        return channels_pb.ListChannelsResponse(channels=channels, next_page_token=next_page_token)


class NotificationServicer(notifications_grpc.NotificationServiceServicer):
    """NotificationService. See the proto for the contract."""

    def __init__(self, notifications: Notifications) -> None:
        self._notifications = notifications

    def ListNotifications(
        self, request: notifications_pb.ListNotificationsRequest, _context: grpc.ServicerContext
    ) -> notifications_pb.ListNotificationsResponse:
        """List notifications, newest first."""
        found, next_page_token = self._notifications.list(
            alert_id=request.alert_id,
            channel_id=request.channel_id,
            page_size=request.page_size,
            page_token=request.page_token,
        )
        notifications = [convert.notification_to_proto(notification) for notification in found]
        return notifications_pb.ListNotificationsResponse(notifications=notifications, next_page_token=next_page_token)


class SinkServicer(otlp_grpc.MetricsServiceServicer):
    """OpenTelemetry's own MetricsService: what processes and collectors send metrics to."""

    def __init__(self, latest: Latest) -> None:
        self._latest = latest

    def Export(
        self, request: otlp_pb.ExportMetricsServiceRequest, _context: grpc.ServicerContext
    ) -> otlp_pb.ExportMetricsServiceResponse:
        """Keep the latest points; those that are not kept are counted in the answer, with the reason."""
        refused = self._latest.take(request)
        if not refused.points:
            return otlp_pb.ExportMetricsServiceResponse()
        return otlp_pb.ExportMetricsServiceResponse(
            partial_success=otlp_pb.ExportMetricsPartialSuccess(
                rejected_data_points=refused.points, error_message=refused.message
            )
        )


class MetricsServicer(metrics_grpc.MetricsServiceServicer):
    """MetricsService. See the proto for the contract."""

    def __init__(self, latest: Latest) -> None:
        self._latest = latest

    def ReadMetrics(
        self, request: metrics_pb.ReadMetricsRequest, _context: grpc.ServicerContext
    ) -> Iterator[metrics_pb.ReadMetricsResponse]:
        """Read the latest points."""
        return self._latest.read(request.name_prefix)
