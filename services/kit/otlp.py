"""The exporters to a collector. Imported only where one is configured: they cost every start a fifth of a second."""

import logging
from collections.abc import Sequence

from opentelemetry._logs import set_logger_provider
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.logging.handler import LoggingHandler
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from services.kit.instruments import CARDINALITY_LIMITS
from services.kit.span_encoding import encoded

if "_translate_data" not in vars(OTLPSpanExporter):
    raise ImportError("this version of the OTLP exporter would send spans as they are, secrets included")


class SpanExporter(OTLPSpanExporter):
    """The SDK's exporter, with its retries and its timeouts, and our encoding, which takes secrets out."""

    def _translate_data(self, data: Sequence[ReadableSpan]) -> ExportTraceServiceRequest:
        return encoded(data)


def span_processor() -> SpanProcessor:
    """Return what sends spans, in batches."""
    return BatchSpanProcessor(SpanExporter())


def metric_reader(every_ms: int) -> MetricReader:
    """Return what sends metrics, every so many milliseconds."""
    return PeriodicExportingMetricReader(
        OTLPMetricExporter(), export_interval_millis=every_ms, cardinality_limits=CARDINALITY_LIMITS
    )


def log_handler(resource: Resource) -> tuple[logging.Handler, LoggerProvider]:
    """Return what sends log records, in batches, and the provider to shut down at the end."""
    provider = LoggerProvider(resource, shutdown_on_exit=False)
    provider.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter()))
    set_logger_provider(provider)
    return LoggingHandler(logger_provider=provider), provider
