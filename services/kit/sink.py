"""The exporter to alerts' metrics sink, for installations without a collector.

The SDK's own exporter tries again with pauses and logs each attempt as an error, and takes no notice of points that were
refused. Here the next export carries everything anyway: one attempt, and a sink that is away is told once.
"""

import logging
from typing import Any, Final

import grpc
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import MetricsServiceStub
from opentelemetry.sdk.metrics.export import (
    MetricExporter,
    MetricExportResult,
    MetricReader,
    MetricsData,
    PeriodicExportingMetricReader,
)

from services.kit.instruments import CARDINALITY_LIMITS

_SECONDS: Final = 5.0
_FAILURES: Final = 4  # in a row before it is told: whoever restarts alerts need not hear of it
_OPTIONS: Final = (
    ("grpc.max_send_message_length", 32 * 1024 * 1024),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)

_log = logging.getLogger(__name__)


class SinkExporter(MetricExporter):
    """Sends metrics to the sink, all of them cumulative."""

    def __init__(self, address: str, token: str | None) -> None:
        """Prepare; nothing is connected before the first export.

        Args:
            address: the alerts service's host:port.
            token: the service token.
        """
        super().__init__()
        self._address = address
        self._metadata = (("authorization", f"Bearer {token}"),) if token is not None else ()
        self._channel = grpc.insecure_channel(address, options=_OPTIONS)
        self._stub = MetricsServiceStub(self._channel)  # type: ignore[no-untyped-call]
        self._failures = 0
        self._refusal = ""

    def export(
        self,
        metrics_data: MetricsData,
        timeout_millis: float = 10_000,
        **_more: Any,
    ) -> MetricExportResult:
        """Send once. Never raises."""
        request = encode_metrics(metrics_data)
        try:
            answer = self._stub.Export(request, timeout=min(_SECONDS, timeout_millis / 1000), metadata=self._metadata)
        except grpc.RpcError as error:
            self._failures += 1
            if self._failures == _FAILURES:
                _log.warning(
                    "metrics cannot be sent, /metrics will lack this process: %s",
                    error.details() or error.code().name,
                    extra={"address": self._address},
                )
            return MetricExportResult.FAILURE
        if self._failures >= _FAILURES:
            _log.info("metrics are sent again", extra={"address": self._address})
        self._failures = 0
        refusal = answer.partial_success.error_message
        if refusal != self._refusal:
            self._refusal = refusal
            if refusal:
                points = answer.partial_success.rejected_data_points
                _log.warning("metrics were refused: %s", refusal, extra={"points": points})
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 10_000) -> bool:  # noqa: ARG002 - the base class's
        """Do nothing: nothing is kept."""
        return True

    def shutdown(self, timeout_millis: float = 30_000, **_more: Any) -> None:  # noqa: ARG002 - likewise
        """Close the connection."""
        self._channel.close()


def metric_reader(address: str, token: str | None, every_ms: int) -> MetricReader:
    """Return what sends metrics to the sink, every so many milliseconds."""
    exporter = SinkExporter(address, token)
    return PeriodicExportingMetricReader(
        exporter, export_interval_millis=every_ms, cardinality_limits=CARDINALITY_LIMITS
    )
