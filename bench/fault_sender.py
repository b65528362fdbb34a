"""A sender of spans, log lines and samples that knows what the collector has taken, and asks the backends for it."""

import logging
import threading
import time
import uuid
from collections import Counter
from typing import Any

import httpx
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.logging.handler import LoggingHandler
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, LogRecordExportResult, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, MetricExportResult
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode, format_trace_id

from services.kit.exemplars import KEEP

_EACH_SECOND = 100
_EVERY_SECONDS = 0.5
_TIMEOUT = 5
# The collector's wait for a decision, and what comes behind it.
_DECIDED_SECONDS = 60


class Sender:
    """Sends a hundred spans and lines at a time and one sample; only what was answered counts as taken."""

    def __init__(self, collector: str) -> None:
        self._name = f"fault-sender-{uuid.uuid4().hex[:8]}"
        resource = Resource.create({"service.name": self._name, "service.instance.id": "1"})
        self._spans = InMemorySpanExporter()
        tracers = TracerProvider(resource=resource, shutdown_on_exit=False)
        tracers.add_span_processor(SimpleSpanProcessor(self._spans))
        self._tracer = tracers.get_tracer("bench")
        self._lines = InMemoryLogRecordExporter()
        loggers = LoggerProvider(resource, shutdown_on_exit=False)
        loggers.add_log_record_processor(SimpleLogRecordProcessor(self._lines))
        self._log = logging.getLogger(self._name)
        self._log.propagate = False
        self._log.setLevel(logging.INFO)
        self._log.addHandler(LoggingHandler(logger_provider=loggers))
        self._reader = InMemoryMetricReader()
        self._gauge = (
            MeterProvider([self._reader], resource=resource, shutdown_on_exit=False)
            .get_meter("bench")
            .create_gauge("fault.sequence")
        )
        options: dict[str, Any] = {"endpoint": collector, "insecure": True, "timeout": _TIMEOUT}
        self._traces_out = OTLPSpanExporter(**options)
        self._logs_out = OTLPLogExporter(**options)
        self._metrics_out = OTLPMetricExporter(**options)
        self.refused: Counter[str] = Counter()
        # Trace ids of what was taken, by whether their spans are kept or wait for a decision.
        self._traces: dict[str, list[str]] = {"spans kept": [], "spans undecided": []}
        self._taken: Counter[str] = Counter()

    def run(self, stopping: threading.Event) -> None:
        """Send until stopped."""
        number = 0
        while not stopping.wait(_EVERY_SECONDS):
            number += 1
            self._send_trace("spans kept", kept=True)
            self._send_trace("spans undecided", kept=False)
            for line in range(_EACH_SECOND):
                self._log.info("line %d of round %d", line, number)
            lines = self._lines.get_finished_logs()
            self._lines.clear()
            self._note("log lines", self._logs_out.export(lines) is LogRecordExportResult.SUCCESS, len(lines))
            self._gauge.set(number)
            data = self._reader.get_metrics_data()
            assert data is not None  # noqa: S101 - a gauge was set
            self._note("samples", self._metrics_out.export(data) is MetricExportResult.SUCCESS, 1)

    def taken(self) -> dict[str, int]:
        """Return what the collector has taken, by kind."""
        return dict(self._taken)

    def counted(self, ports: Any, seconds: float) -> dict[str, int]:
        """Return what the backends have of it, as soon as that is all or after so many seconds."""
        found: dict[str, int] = {}
        started = time.monotonic()
        deadline = started + seconds
        while time.monotonic() < deadline:
            for kind, number in self._taken.items():
                if found.get(kind, -1) < number:
                    found[kind] = self._count(kind, ports)
            missing = {kind for kind, number in self._taken.items() if found[kind] < number}
            # Of what waited for a decision a part is gone; the rest is here when the last decision is made.
            if missing <= {"spans undecided"} and (not missing or time.monotonic() > started + _DECIDED_SECONDS):
                break
            time.sleep(2)
        return found

    def close(self) -> None:
        """Close the connections."""
        for exporter in (self._traces_out, self._logs_out, self._metrics_out):
            exporter.shutdown()

    def _send_trace(self, kind: str, *, kept: bool) -> None:
        with self._tracer.start_as_current_span("round", attributes={KEEP: kept}) as root:
            # An error: tail sampling keeps the trace for certain, once it decides.
            root.set_status(StatusCode.ERROR)
            for _ in range(_EACH_SECOND - 1):
                self._tracer.start_span("step", attributes={KEEP: kept}).end()
        spans = self._spans.get_finished_spans()
        self._spans.clear()
        is_taken = self._traces_out.export(spans) is SpanExportResult.SUCCESS
        if is_taken:
            self._traces[kind].append(format_trace_id(root.get_span_context().trace_id))
        self._note(kind, is_taken, len(spans))

    def _note(self, kind: str, is_taken: bool, number: int) -> None:  # noqa: FBT001 - what came of it
        if is_taken:
            self._taken[kind] += number
        else:
            self.refused[kind] += number

    def _count(self, kind: str, ports: Any) -> int:
        if kind in self._traces:
            return sum(self._spans_of(trace, ports) for trace in self._traces[kind])
        if kind == "log lines":
            query = f'sum(count_over_time({{service_name="{self._name}"}}[1h]))'
            answer = httpx.get(
                f"http://{ports.addresses['Loki']}/loki/api/v1/query", params={"query": query}, timeout=30
            )
        else:
            query = f'sum(count_over_time(fault_sequence{{job="{self._name}"}}[1h]))'
            answer = httpx.get(
                f"http://{ports.addresses['Prometheus']}/api/v1/query", params={"query": query}, timeout=30
            )
        if answer.status_code != httpx.codes.OK:
            return 0
        found = answer.json()["data"]["result"]
        return int(float(found[0]["value"][1])) if found else 0

    @staticmethod
    def _spans_of(trace: str, ports: Any) -> int:
        answer = httpx.get(f"http://{ports.addresses['Jaeger']}/api/traces/{trace}", timeout=30)
        if answer.status_code != httpx.codes.OK:
            return 0
        return sum(len(each["spans"]) for each in answer.json()["data"])
