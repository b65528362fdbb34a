import socket
import subprocess
import sys

from opentelemetry import baggage, trace
from opentelemetry.sdk.trace import TracerProvider

from services.kit import telemetry

# Sets up all signals towards the collector that the environment names, uses them, and stops.
PROGRAM = """
import logging, os, time
from opentelemetry import metrics, trace
from services.kit import settings, telemetry
from services.kit.config import KitSettings

running = telemetry.setup("usage", settings.read(KitSettings, os.environ), role="server")
started = time.perf_counter()
for number in range(5_000):
    with trace.get_tracer("test").start_as_current_span("work"):
        metrics.get_meter("test").create_counter("work").add(1)
logging.getLogger("services.usage").info("done")
print("worked", time.perf_counter() - started, flush=True)
started = time.perf_counter()
running.shutdown()
print("stopped", time.perf_counter() - started, flush=True)
"""


def test_a_collector_that_is_away_slows_no_work_and_holds_up_no_stop() -> None:
    with socket.socket() as held:  # bound, never listening: connections are refused
        held.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{held.getsockname()[1]}"
        ended = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env={"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
    seconds = {
        name: float(rest)
        for name, _, rest in (line.partition(" ") for line in ended.stdout.splitlines())
        if name in {"worked", "stopped"}
    }
    assert seconds["worked"] < 5  # a tenth of a second or so; one attempt to send would take ten
    assert seconds["stopped"] < 4  # 2 s are allowed
    assert len(ended.stdout.splitlines()) < 20


def test_headers_that_describe_nothing_are_outside_every_trace() -> None:
    # A server may begin a request within the context of the one before it on the same connection.
    provider = TracerProvider(shutdown_on_exit=False)
    with provider.get_tracer("tests").start_as_current_span("the request before"), telemetry.customer("cus_before"):
        nothing = telemetry.extract({"content-type": "text/plain"})
        carried = telemetry.inject()
    assert not trace.get_current_span(nothing).get_span_context().is_valid
    assert baggage.get_baggage("customer_id", nothing) is None
    assert baggage.get_baggage("customer_id", telemetry.extract(carried)) == "cus_before"
