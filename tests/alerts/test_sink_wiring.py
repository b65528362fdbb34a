"""Where a process sends its metrics, by the variables alone; and that what brings telemetry makes none of its own."""

import subprocess
import sys
from collections.abc import Iterator

import grpc
import pytest
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc as otlp_grpc
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from meterscope.alerts.v1 import metrics_service_pb2 as metrics_pb
from meterscope.alerts.v1 import metrics_service_pb2_grpc as metrics_grpc
from services.alerts.servicer import MetricsServicer, SinkServicer
from services.alerts.sink.latest import Latest
from services.kit.config import KitSettings
from services.kit.server import Server
from services.kit.settings import read

# Counts something and stops, which sends it.
PROGRAM = """
import os
from opentelemetry import metrics
from services.kit import settings, telemetry
from services.kit.config import KitSettings

running = telemetry.setup("usage", settings.read(KitSettings, os.environ), role="worker")
metrics.get_meter("tests").create_counter("billing.jobs").add(2)
running.shutdown()
"""


@pytest.fixture
def latest() -> Latest:
    return Latest(max_series=100, max_bytes=1 << 20)


@pytest.fixture
def sink(latest: Latest) -> Iterator[str]:
    """The address of a sink that asks for a token."""

    def add(server: grpc.Server) -> None:
        metrics_grpc.add_MetricsServiceServicer_to_server(MetricsServicer(latest), server)
        otlp_grpc.add_MetricsServiceServicer_to_server(SinkServicer(latest), server)

    settings = read(KitSettings, {"METERSCOPE_SERVICE_TOKEN": "sesame", "METERSCOPE_GRACE_SECONDS": "0"})
    server = Server("127.0.0.1:0", add, service_names=(), settings=settings)
    server.start()
    yield server.address
    server.stop()


def run(**environ: str) -> None:
    subprocess.run([sys.executable, "-c", PROGRAM], env=environ, timeout=60, check=True)


def test_without_a_collector_metrics_go_to_the_sink(latest: Latest, sink: str) -> None:
    run(METERSCOPE_METRICS_SINK=sink, METERSCOPE_SERVICE_TOKEN="sesame")
    (message,) = latest.read("billing_jobs")
    (family,) = message.families
    assert (family.labels["job"], family.series[0].number) == ("meterscope/usage-worker", 2)


def test_with_a_collector_they_go_there_alone(latest: Latest, sink: str) -> None:
    # The collector's address answers, as whatever is there; the sink hears nothing.
    other = Latest(max_series=100, max_bytes=1 << 20)
    server = Server(
        "127.0.0.1:0",
        lambda served: otlp_grpc.add_MetricsServiceServicer_to_server(SinkServicer(other), served),  # type: ignore[no-untyped-call]
        service_names=(),
        settings=read(KitSettings, {"METERSCOPE_GRACE_SECONDS": "0"}),
    )
    server.start()
    try:
        run(
            METERSCOPE_METRICS_SINK=sink,
            METERSCOPE_SERVICE_TOKEN="sesame",
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://{server.address}",
        )
    finally:
        server.stop()
    assert list(latest.read()) == []
    assert [family.name for message in other.read("billing_jobs") for family in message.families] == [
        "billing_jobs_total"
    ]


def test_an_export_makes_no_span_and_a_read_makes_one(sink: str, spans: InMemorySpanExporter) -> None:
    bearer = (("authorization", "Bearer sesame"),)
    exporter = OTLPMetricExporter(endpoint=f"http://{sink}", insecure=True, headers=bearer)
    reader = PeriodicExportingMetricReader(exporter, float("inf"))
    provider = MeterProvider([reader], shutdown_on_exit=False)
    provider.get_meter("tests").create_counter("billing.jobs").add(1)
    reader.collect()
    provider.shutdown()
    assert spans.get_finished_spans() == ()
    with grpc.insecure_channel(sink) as channel:
        stub = metrics_grpc.MetricsServiceStub(channel)
        assert list(stub.ReadMetrics(metrics_pb.ReadMetricsRequest(), metadata=bearer))
    assert [span.name for span in spans.get_finished_spans()] == ["meterscope.alerts.v1.MetricsService/ReadMetrics"]
