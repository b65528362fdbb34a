"""The main job through the stack, and where to look then: every address that is printed has just been asked."""

# ruff: noqa: T201 - a program's output

import os
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from stack_programs import StackError
from stack_running import Ports, get_json

# Metrics leave the processes every 15 s; a trace waits 30 s for the decision to keep it.
_SEEN_SECONDS: Final = 90.0
_ASK_EVERY_SECONDS: Final = 1.0
_DAY_SECONDS: Final = 86_400


def run(ports: Ports, data_dir: Path, rest: Sequence[str]) -> None:
    """Run `meterscope demo` with all telemetry going to the stack, then ask for what it left there.

    Raises:
        StackError: the demo failed, or something is not found.
    """
    command = [str(Path(sys.executable).with_name("meterscope")), "demo", "--data-dir", str(data_dir), *rest]
    endpoint = f"http://{ports.addresses['OTLP gRPC']}"
    began = time.time()
    done = subprocess.run(  # noqa: S603 - our own command
        command, env={**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}, check=False
    )
    if done.returncode:
        raise StackError(f"{' '.join(command)} ended with {done.returncode}")
    print("\nWhat it left in the stack, asked for just now:")
    prometheus, jaeger, loki = (f"http://{ports.addresses[name]}" for name in ("Prometheus", "Jaeger", "Loki"))

    usage = "sum by (customer_id, tenant_id, metric_type) (billing_usage_increment_total)"
    _tell(f"{prometheus}/api/v1/query?" + _query(query=usage), _samples, "usage by customer (PromQL)")

    start, end = int(began), int(time.time()) + _DAY_SECONDS
    recent = f"{jaeger}/api/traces?" + _query(service="billing-worker", operation="finalize", limit=1)
    trace = _tell(recent, _trace_ids, "the trace of an invoice (Jaeger)")[0]
    _tell(f"{jaeger}/api/traces/{trace}", _span_names, "that trace's spans (Jaeger)")

    lines = f'{{service_namespace="meterscope"}} | trace_id="{trace}"'
    found = f"{loki}/loki/api/v1/query_range?" + _query(query=lines, start=f"{start}000000000", end=f"{end}000000000")
    _tell(found, _lines, "log lines of that trace (LogQL)")


def _tell(url: str, read: Callable[[Any], list[str]], what: str) -> list[str]:
    """Ask until something is found, print the address and what came of it."""
    deadline = time.monotonic() + _SEEN_SECONDS
    while not (found := _found(url, read)):
        if time.monotonic() > deadline:
            raise StackError(f"{what}: nothing found after {_SEEN_SECONDS:.0f} s at {url}")
        time.sleep(_ASK_EVERY_SECONDS)
    print(f"\n  {what}\n    {url}")
    for line in found[:8]:
        print(f"      {line}")
    if len(found) > 8:  # noqa: PLR2004 - as above
        print(f"      … {len(found) - 8} more")
    return found


def _found(url: str, read: Callable[[Any], list[str]]) -> list[str]:
    try:
        return read(get_json(url))
    except StackError as error:
        # Jaeger answers so for a trace that it does not have yet.
        if ": 404: " in str(error):
            return []
        raise


def _query(**parameters: object) -> str:
    return urllib.parse.urlencode({name: str(value) for name, value in parameters.items()})


def _samples(answer: Any) -> list[str]:
    return [f"{sample['value'][1]:>10}  {sample['metric']}" for sample in answer["data"]["result"]]


def _trace_ids(answer: Any) -> list[str]:
    return [trace["traceID"] for trace in answer["data"] or []]


def _span_names(answer: Any) -> list[str]:
    trace = answer["data"][0]
    names = {key: process["serviceName"] for key, process in trace["processes"].items()}
    spans = sorted(trace["spans"], key=lambda span: span["startTime"])
    return [f"{names[span['processID']]}: {span['operationName']} {span['duration'] / 1000:.1f} ms" for span in spans]


def _lines(answer: Any) -> list[str]:
    return [line for stream in answer["data"]["result"] for _, line in stream["values"]]
