"""Traces, metrics and logs of a process, set up once in its `__main__`; everything else uses the OpenTelemetry API.

Telemetry observes: with no collector, a slow one or a dead one, no call is slowed and none fails. Queues are bounded
and drop. Where nothing is configured, spans are not recorded, but trace ids are made and travel on, so that usage
events keep the trace that sent them.
"""

import logging
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from opentelemetry import baggage, context, metrics, propagate, trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from services.kit import exemplars, logs, sentry
from services.kit.config import KitSettings
from services.kit.log_files import Limits, LogFiles
from services.kit.redacted_spans import RedactedSpans
from services.kit.runtime import Runtime
from services.kit.spans import Tracers

# What baggage may write on spans and logs; anything else a caller sends stays in the baggage.
BAGGAGE_ATTRIBUTES: Final = ("customer_id",)
METRICS_EVERY_MS: Final = 15_000
SPAN_FILE_EVERY_MS: Final = 200
_SHUTDOWN_SECONDS: Final = 2.0
_HEADERS: Final = ("traceparent", "baggage")


class BaggageAttributes(SpanProcessor):
    """Copies allow-listed baggage entries to each span's attributes."""

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Copy."""
        if parent_context is not None and not parent_context:
            # The caller sent none: to look for each takes longer than to begin the span.
            return
        for name in BAGGAGE_ATTRIBUTES:
            value = baggage.get_baggage(name, parent_context)
            if isinstance(value, str):
                span.set_attribute(name, value)

    def on_end(self, span: ReadableSpan) -> None:
        """Do nothing."""


@dataclass
class Telemetry:
    """What has to be shut down at the end of a process."""

    providers: list[Any] = field(default_factory=list)

    def shutdown(self) -> None:
        """Send what is queued and stop. After 2 s the rest is dropped: the exporters alone would try for 30 s."""
        deadline = time.monotonic() + _SHUTDOWN_SECONDS
        threads = [threading.Thread(target=provider.shutdown, daemon=True) for provider in self.providers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))


def setup(service: str, settings: KitSettings, *, role: str, readers: Sequence[MetricReader] = ()) -> Telemetry:
    """Set up traces, metrics and logs of this process.

    Args:
        service: such as `usage`.
        settings: where things go.
        role: `server`, `worker` or `gateway`; workers report as `usage-worker`.
        readers: further metric readers.
    """
    name = f"{service}-worker" if role == "worker" else service
    # Of a machine's containers each has a host name of its own: OTEL_RESOURCE_ATTRIBUTES may name the machine.
    resource = Resource({"host.name": socket.gethostname()}).merge(
        Resource.create(
            {
                "service.name": name,
                "service.namespace": "meterscope",
                "service.version": settings.version,
                "service.instance.id": f"{socket.gethostname()}-{os.getpid()}",
                "deployment.environment.name": settings.environment,
                "process.pid": os.getpid(),
            }
        )
    )
    propagate.set_global_textmap(CompositePropagator([TraceContextTextMapPropagator(), W3CBaggagePropagator()]))
    telemetry = Telemetry()
    reports = sentry.setup(name, settings, role=role)
    telemetry.providers.append(_setup_traces(resource, settings, reports))
    if settings.otlp_endpoint or settings.metrics_sink or readers:
        telemetry.providers.append(_setup_metrics(resource, settings, readers))
    _setup_logs(telemetry, resource, settings, reports)
    return telemetry


def _setup_traces(resource: Resource, settings: KitSettings, reports: sentry.Sentry | None) -> TracerProvider:
    wanted = settings.otlp_endpoint is not None or settings.trace_file is not None or reports is not None
    provider = Tracers(resource=resource, sampler=None if wanted else ALWAYS_OFF, shutdown_on_exit=False)
    provider.add_span_processor(BaggageAttributes())
    provider.add_span_processor(logs.RaisedIn())
    if reports is not None:
        provider.add_span_processor(reports.units)
    if settings.trace_file:
        # The buffer holds a whole batch, so that a flush is one append: processes share the file without mixing lines.
        settings.trace_file.parent.mkdir(parents=True, exist_ok=True)
        out = settings.trace_file.open("a", buffering=1 << 22, encoding="utf-8")
        exporter = RedactedSpans(ConsoleSpanExporter(out=out, formatter=lambda span: span.to_json(indent=None) + "\n"))
        provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=SPAN_FILE_EVERY_MS))
    if settings.otlp_endpoint:
        # After the file: processors are stopped in their order, and a collector that is away takes all the time there is.
        from services.kit import otlp

        provider.add_span_processor(otlp.span_processor())
    trace.set_tracer_provider(provider)
    return provider


def _setup_metrics(resource: Resource, settings: KitSettings, readers: Sequence[MetricReader]) -> MeterProvider:
    own: list[MetricReader] = list(readers)
    if settings.otlp_endpoint:
        from services.kit import otlp

        own.append(otlp.metric_reader(METRICS_EVERY_MS))
    elif settings.metrics_sink:
        from services.kit import sink

        own.append(sink.metric_reader(settings.metrics_sink, settings.service_token, METRICS_EVERY_MS))
    provider = MeterProvider(own, resource=resource, exemplar_filter=exemplars.KeptSpans(), shutdown_on_exit=False)
    metrics.set_meter_provider(provider)
    Runtime(settings.data_dir or Path()).observe(metrics.get_meter("services.kit.runtime"))
    return provider


def _setup_logs(telemetry: Telemetry, resource: Resource, settings: KitSettings, reports: sentry.Sentry | None) -> None:
    name = str(resource.attributes["service.name"])
    common = {"service": name, "version": settings.version, "environment": settings.environment}
    handlers: list[logging.Handler] = []
    if settings.log_dir:
        limits = Limits(settings.log_file_bytes, timedelta(days=settings.log_retention_days), settings.log_files)
        files = LogFiles(settings.log_dir, name, limits)
        files.setFormatter(logs.JsonFormatter(common))
        handlers.append(files)
    if settings.otlp_endpoint:
        from services.kit import otlp

        handler, logger_provider = otlp.log_handler(resource)
        telemetry.providers.append(logger_provider)
        handlers.append(handler)
    if reports is not None:
        telemetry.providers.append(reports)
        handlers.append(reports.breadcrumbs)
    logs.setup(settings.log_level, common, handlers, [reports.events] if reports else [])


def inject() -> dict[str, str]:
    """Return the current context as W3C headers (`traceparent`, `tracestate`, `baggage`), empty outside a trace."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return carrier


def extract(carrier: Mapping[str, str]) -> Context:
    """Return the context that W3C headers describe; an empty one where they describe none."""
    # Most callers of ours send none, and to look for each takes the propagators 10 µs.
    if not any(header in carrier for header in _HEADERS):
        return Context()
    return propagate.extract(carrier)


def current_ids() -> tuple[bytes, bytes]:
    """Return the current trace's and span's ids as 16 and 8 bytes, both empty outside a trace."""
    span = trace.get_current_span().get_span_context()
    return (span.trace_id.to_bytes(16, "big"), span.span_id.to_bytes(8, "big")) if span.is_valid else (b"", b"")


def current_trace_id() -> str:
    """Return the current trace's id as 32 hex digits, empty outside a trace."""
    span = trace.get_current_span().get_span_context()
    return trace.format_trace_id(span.trace_id) if span.is_valid else ""


@contextmanager
def customer(customer_id: str) -> Iterator[None]:
    """Write the customer on every span and log line in the block, here and in the processes that it calls."""
    token = context.attach(baggage.set_baggage("customer_id", customer_id))
    try:
        yield
    finally:
        context.detach(token)
