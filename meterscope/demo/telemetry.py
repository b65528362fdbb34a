"""The demo's own spans: as a client of Meterscope, and as the receiver of its webhooks."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter
from opentelemetry.trace import Tracer

# Holds a whole batch, so that a flush is one append: processes share the file without mixing lines.
_BUFFER_BYTES: Final = 1 << 22
_WRITE_EVERY_MS: Final = 200
# A collector that is away holds up the demo's end by no more, for each of the two.
_SEND_SECONDS: Final = 2


@dataclass(frozen=True)
class Telemetry:
    """The demo's two tracers. Everything else takes `client` from OpenTelemetry's API."""

    client: Tracer
    receiver: Tracer
    providers: tuple[TracerProvider, ...]

    def flush(self) -> None:
        """Write what is queued."""
        for provider in self.providers:
            provider.force_flush()

    def shutdown(self) -> None:
        """Write what is queued and stop."""
        for provider in self.providers:
            provider.shutdown()


def setup(file: Path, collector: str | None) -> Telemetry:
    """Append spans to `file` as JSON lines, beside those of the services, and send them where those send theirs.

    Args:
        file: made if need be.
        collector: an OTLP/gRPC address such as http://127.0.0.1:4317; None for the file alone.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    client, receiver = _provider("client", file, collector), _provider("webhook-receiver", file, collector)
    trace.set_tracer_provider(client)
    return Telemetry(client.get_tracer("meterscope.demo"), receiver.get_tracer("meterscope.demo"), (client, receiver))


def _provider(service: str, file: Path, collector: str | None) -> TracerProvider:
    provider = TracerProvider(resource=Resource.create({"service.name": service, "service.namespace": "meterscope"}))
    out = file.open("a", buffering=_BUFFER_BYTES, encoding="utf-8")
    exporter = ConsoleSpanExporter(out=out, formatter=lambda span: span.to_json(indent=None) + "\n")
    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=_WRITE_EVERY_MS))
    if collector:
        # Imported only where there is one: it costs the start a fifth of a second.
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

        sender = OTLPSpanExporter(endpoint=collector, timeout=_SEND_SECONDS)
        provider.add_span_processor(BatchSpanProcessor(sender, export_timeout_millis=_SEND_SECONDS * 1000))
    return provider
