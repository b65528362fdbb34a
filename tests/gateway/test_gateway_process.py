import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from service_doubles import ServiceDouble

from gateway.listening import listen
from services.kit.server import BindError, OpenAddress

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT_ID = "00f067aa0ba902b7"


def environment(**variables: str) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith(("METERSCOPE_", "OTEL_"))}
    return {**own, **variables}


def run(address: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "gateway"],
        env=environment(METERSCOPE_GATEWAY_ADDRESS=address),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", ":8080", "192.0.2.1:8080", "example.com:80", "8080"])
def test_an_address_that_others_can_reach_is_refused(address: str) -> None:
    with pytest.raises(OpenAddress, match=r"no API keys yet|is no host:port"):
        listen(address)


def test_the_process_says_why_it_will_not_listen() -> None:
    ended = run("0.0.0.0:0")
    assert ended.returncode == 78
    assert "no API keys yet" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_malformed_variable_is_named() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "gateway"],
        env=environment(METERSCOPE_GATEWAY_DEADLINE_SECONDS="soon"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 78
    assert "METERSCOPE_GATEWAY_DEADLINE_SECONDS 'soon' is not a number of seconds" in ended.stderr


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(BindError, match=f"cannot listen on {address}: Address already in use"):
            listen(address)


def test_gateways_share_a_port() -> None:
    with listen("127.0.0.1:0") as first:
        listen(f"127.0.0.1:{first.getsockname()[1]}").close()


@contextmanager
def process(doubles: dict[str, ServiceDouble], trace_file: Path) -> Iterator[tuple["subprocess.Popen[bytes]", str]]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    addresses = {f"METERSCOPE_{name.upper()}_ADDRESS": double.address for name, double in doubles.items()}
    variables = {
        "METERSCOPE_GATEWAY_ADDRESS": f"127.0.0.1:{port}",
        "METERSCOPE_TRACE_FILE": str(trace_file),
        **addresses,
    }
    child = subprocess.Popen([sys.executable, "-m", "gateway"], env=environment(**variables), stdout=subprocess.DEVNULL)
    try:
        _wait_for(port, child)
        yield child, f"http://127.0.0.1:{port}"
    finally:
        child.kill()
        child.wait()


def _wait_for(port: int, child: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and child.poll() is None:
        try:
            httpx.get(f"http://127.0.0.1:{port}/health/live")
        except httpx.TransportError:
            continue
        return
    pytest.fail("the gateway did not start")


def test_a_request_is_one_trace_and_a_stop_is_clean(services: dict[str, ServiceDouble], tmp_path: Path) -> None:
    trace_file = tmp_path / "spans.jsonl"
    with process(services, trace_file) as (child, url):
        answer = httpx.get(f"{url}/v1/plans/p", headers={"traceparent": f"00-{TRACE_ID}-{PARENT_ID}-01"})
        assert answer.status_code == 200
        child.send_signal(signal.SIGTERM)
        assert child.wait(20) == 0
    spans: list[dict[str, Any]] = [json.loads(line) for line in trace_file.read_text().splitlines()]
    ours = {span["name"]: span for span in spans if span["context"]["trace_id"] == f"0x{TRACE_ID}"}
    server = ours["GET /v1/plans/{plan_id}"]
    client = ours["meterscope.billing.v1.CatalogService/GetPlan"]
    assert (server["kind"], server["parent_id"]) == ("SpanKind.SERVER", f"0x{PARENT_ID}")
    assert server["attributes"]["http.route"] == "/v1/plans/{plan_id}"
    assert server["attributes"]["http.response.status_code"] == 200
    assert (client["kind"], client["parent_id"]) == ("SpanKind.CLIENT", server["context"]["span_id"])
    sent = services["billing"].last.metadata["traceparent"].split("-")
    assert (sent[1], f"0x{sent[2]}") == (TRACE_ID, client["context"]["span_id"])
