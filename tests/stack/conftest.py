"""The real stack and the whole of Meterscope on it, once a session. Collected where `-m stack` asks for it: `make e2e`."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from eventually import eventually

from tests.e2e.running import Running, start, stop
from tests.ports import free_ports

ROOT = Path(__file__).parents[2]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "stack: runs on the real collector, Prometheus, Jaeger and Loki (make e2e)")
    config.addinivalue_line("markers", "undisturbed: expects that nothing has gone wrong yet, and runs first")


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    return None if "stack" in config.option.markexpr else True


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # All share one stack, whose Prometheus remembers for a month what others let fail.
    items.sort(key=lambda item: item.get_closest_marker("undisturbed") is None)


@dataclass(frozen=True)
class RealStack:
    """Where the stack's programs answer."""

    addresses: dict[str, str]
    pids: dict[str, int]

    @property
    def endpoint(self) -> str:
        return f"http://{self.addresses['OTLP gRPC']}"

    def trace(self, trace_id: str) -> dict[str, dict[str, Any]]:
        """Jaeger's spans of a trace by span id, each with its `service`; none before it has the trace."""
        answer = httpx.get(f"http://{self.addresses['Jaeger']}/api/traces/{trace_id}", timeout=30)
        if answer.status_code == httpx.codes.NOT_FOUND:
            return {}
        answer.raise_for_status()
        (trace,) = answer.json()["data"]
        names = {key: process["serviceName"] for key, process in trace["processes"].items()}
        return {span["spanID"]: {**span, "service": names[span["processID"]]} for span in trace["spans"]}

    def find_traces(self, service: str, operation: str) -> list[str]:
        """Ids of the traces in Jaeger that have such a span."""
        parameters = {"service": service, "operation": operation, "limit": 20}
        answer = httpx.get(f"http://{self.addresses['Jaeger']}/api/traces", params=parameters, timeout=30)
        answer.raise_for_status()
        return [trace["traceID"] for trace in answer.json()["data"] or []]

    def samples(self, query: str) -> list[dict[str, Any]]:
        """What Prometheus answers: labels under `metric`, the sample under `value`."""
        answer = httpx.get(
            f"http://{self.addresses['Prometheus']}/api/v1/query", params={"query": query}, timeout=30
        ).raise_for_status()
        found: list[dict[str, Any]] = answer.json()["data"]["result"]
        return found

    def everything(self) -> dict[str, str]:
        """All that the backends hold, as text, by backend: spans, samples' labels, log lines with theirs."""
        jaeger, prometheus, loki = (f"http://{self.addresses[name]}" for name in ("Jaeger", "Prometheus", "Loki"))
        services = httpx.get(f"{jaeger}/api/services", timeout=30).raise_for_status().json()["data"]
        many: dict[str, str | int] = {"limit": 1_500}
        traces = [
            httpx.get(f"{jaeger}/api/traces", params={**many, "service": service}, timeout=60).raise_for_status().text
            for service in services
        ]
        labels = httpx.get(f"{prometheus}/api/v1/labels", timeout=30).raise_for_status().json()["data"]
        values = [
            httpx.get(f"{prometheus}/api/v1/label/{name}/values", timeout=30).raise_for_status().text for name in labels
        ]
        query = {"query": '{service_name=~".+"}', "limit": 5_000}
        lines = httpx.get(f"{loki}/loki/api/v1/query_range", params=query, timeout=60).raise_for_status().text
        return {"Jaeger": "\n".join(traces), "Prometheus": "\n".join(values), "Loki": lines}

    def lines(self, query: str) -> list[tuple[dict[str, str], str]]:
        """What Loki answers: labels and line."""
        answer = httpx.get(
            f"http://{self.addresses['Loki']}/loki/api/v1/query_range", params={"query": query}, timeout=30
        ).raise_for_status()
        return [(stream["stream"], line) for stream in answer.json()["data"]["result"] for _, line in stream["values"]]


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealStack]:
    """The programs from the cache, on ports of their own. Of what is not kept for a reason, nothing is sampled."""
    folder = tmp_path_factory.mktemp("stack")
    command = [sys.executable, str(ROOT / "scripts/stack.py"), "run"]
    environ = {**os.environ, "COLLECTOR_DECISION_WAIT": "5s", "COLLECTOR_SAMPLED_PERCENT": "0"}
    process = subprocess.Popen([*command, "--data-dir", str(folder), "--port", str(free_ports(10))], env=environ)
    told = folder / "stack.json"

    def ready() -> bool:
        assert process.poll() is None, "the stack does not run; it said why above (`make stack-build` builds it)"
        return told.exists()

    eventually(ready, seconds=90)
    yield RealStack(**json.loads(told.read_text()))
    process.send_signal(signal.SIGINT)
    assert process.wait(90) == 0


@pytest.fixture(scope="session")
def up(stack: RealStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """`meterscope up` that sends all its telemetry to the stack, and writes all files that it can write.

    Beside its data folder: `traces.jsonl` and the folder `log-files`.
    """
    folder = tmp_path_factory.mktemp("up")
    running = start(
        folder / "data",
        OTEL_EXPORTER_OTLP_ENDPOINT=stack.endpoint,
        METERSCOPE_TRACE_FILE=str(folder / "traces.jsonl"),
        LOG_DIR=str(folder / "log-files"),
        # Tests receive webhooks on loopback.
        METERSCOPE_ALLOW_PRIVATE_WEBHOOKS="true",
    )
    yield running
    assert stop(running) == 0
