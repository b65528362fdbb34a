"""A shop that meters by the client SDK and has OpenTelemetry set up as its own: `sdk_program ENDPOINT USAGE CUSTOMER`."""

import logging
import sys

from opentelemetry import metrics, trace
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.logging.handler import LoggingHandler
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from meterscope.client import Client


def main(endpoint: str, usage: str, customer: str) -> None:
    resource = Resource.create({"service.name": "shop"})
    tracing = TracerProvider(resource=resource)
    tracing.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint, insecure=True)))
    trace.set_tracer_provider(tracing)
    measuring = MeterProvider(
        [PeriodicExportingMetricReader(OTLPMetricExporter(endpoint=endpoint, insecure=True))], resource=resource
    )
    metrics.set_meter_provider(measuring)
    logging_to = LoggerProvider(resource)
    logging_to.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter(endpoint=endpoint, insecure=True)))
    logging.getLogger().addHandler(LoggingHandler(logger_provider=logging_to))
    with (
        Client(usage, source="shop") as client,
        # Kept by the collector, as an invoice line's traces are.
        trace.get_tracer("shop").start_as_current_span("order", attributes={"meterscope.keep": True}) as span,
    ):
        client.track("journey.step", customer_id=customer)
        metrics.get_meter("shop").create_counter("shop.orders").add(1)
        logging.getLogger("shop").warning("ordered")
        print(trace.format_trace_id(span.get_span_context().trace_id))
    for provider in (tracing, measuring, logging_to):
        provider.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
