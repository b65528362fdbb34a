"""The real collector, Prometheus, Jaeger and Loki for benchmarks: the programs and files of `make stack`."""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

import stack_programs
import stack_running

from tests.ports import free_ports

if TYPE_CHECKING:
    from stack_running import Ports, Stack

COLLECTOR = "otelcol"
BACKENDS = ("prometheus", "jaeger", "loki")


def endpoint(ports: "Ports") -> dict[str, str]:
    """Return the environment of a process that sends its telemetry to the collector."""
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{ports.addresses['OTLP gRPC']}"}


@contextmanager
def running() -> "Iterator[tuple[Stack, Ports]]":
    """Run it in a folder of its own, on ports of its own.

    Raises:
        StackError: a program is missing (`make stack-build` builds it) or does not start.
    """
    ports = stack_running.Ports.in_a_row(free_ports(10))
    with (
        tempfile.TemporaryDirectory(prefix="bench-stack-", ignore_cleanup_errors=True) as folder,
        stack_running.Stack(stack_programs.programs(), Path(folder), ports) as stack,
    ):
        stack.wait_until_healthy()
        yield stack, ports
