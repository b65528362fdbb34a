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


def setup(file: Path) -> Telemetry:
    """Append spans to `file` as JSON lines, beside those of the services."""
    file.parent.mkdir(parents=True, exist_ok=True)
    client, receiver = _provider("client", file), _provider("webhook-receiver", file)
    trace.set_tracer_provider(client)
    return Telemetry(client.get_tracer("meterscope.demo"), receiver.get_tracer("meterscope.demo"), (client, receiver))


def _provider(service: str, file: Path) -> TracerProvider:
    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    out = file.open("a", buffering=_BUFFER_BYTES, encoding="utf-8")
    exporter = ConsoleSpanExporter(out=out, formatter=lambda span: span.to_json(indent=None) + "\n")
    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=_WRITE_EVERY_MS))
    return provider
