"""`python -m services.payments`: real processes, from the command line to the spans they leave."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from eventually import eventually
from json_lines import json_lines
from payments_harness import Client

from meterscope.payments.v1 import payment_method_service_pb2 as methods_pb
from meterscope.payments.v1 import payment_method_service_pb2_grpc as methods_grpc
from meterscope.payments.v1 import payment_service_pb2 as pb
from meterscope.payments.v1 import payment_service_pb2_grpc as payments_grpc
from services.kit.channel import open_channel
from services.kit.config import KitSettings
from services.kit.settings import read

CARD = "4242424242424242"


@dataclass(frozen=True)
class Process:
    popen: subprocess.Popen[bytes]
    output: Path

    def lines(self) -> list[dict[str, Any]]:
        return json_lines(self.output)

    def address(self) -> str:
        """Where it listens, as it says itself: its port is a free one."""
        told = eventually(lambda: [line for line in self.lines() if line["message"] == "listening"])
        return str(told[0]["address"])


@pytest.fixture
def trace_file(tmp_path: Path) -> Path:
    return tmp_path / "spans.jsonl"


@pytest.fixture
def start(environment: Mapping[str, str], trace_file: Path, tmp_path: Path) -> Iterator[Callable[..., Process]]:
    running: list[subprocess.Popen[bytes]] = []

    def run(*arguments: str) -> Process:
        output = tmp_path / f"{arguments[0]}.log"
        environ = {**os.environ, **environment, "METERSCOPE_TRACE_FILE": str(trace_file)}
        with output.open("wb") as out:
            popen = subprocess.Popen(
                [sys.executable, "-m", "services.payments", *arguments], stdout=out, stderr=out, env=environ
            )
        running.append(popen)
        return Process(popen, output)

    yield run
    for popen in running:
        popen.terminate()
        assert popen.wait(20) == 0


def test_server_and_worker_collect_a_payment_under_one_trace(start: Callable[..., Process], trace_file: Path) -> None:
    server = start("serve", "--migrate")
    address = server.address()
    start("work")
    with open_channel(address, read(KitSettings, {})) as channel:
        client = Client(methods_grpc.PaymentMethodServiceStub(channel), payments_grpc.PaymentServiceStub(channel))
        created = client.pay("sandbox_ok")
        client.until(created.id, pb.PAYMENT_STATE_SUCCEEDED)
        with pytest.raises(grpc.RpcError):
            client.add_method(CARD)
        listing = methods_pb.ListPaymentMethodsRequest(customer_id=created.customer_id)
        assert len(client.methods.ListPaymentMethods(listing).payment_methods) == 1

    def charge() -> list[dict[str, Any]]:
        return [span for span in json_lines(trace_file) if span["name"] == "charge sandbox"]

    span = eventually(charge)[0]
    assert span["kind"] == "SpanKind.CLIENT"
    assert span["attributes"]["meterscope.keep"] is True
    assert span["attributes"]["payment.id"] == created.id
    assert span["attributes"]["customer_id"] == created.customer_id

    def call() -> list[dict[str, Any]]:
        return [
            span
            for span in json_lines(trace_file)
            if span["name"] == "meterscope.payments.v1.PaymentService/CreatePayment"
        ]

    assert eventually(call)[0]["context"]["trace_id"] == span["context"]["trace_id"]
    assert CARD not in server.output.read_text()


def test_missing_settings_end_the_process_with_78_and_their_names() -> None:
    environ = {name: value for name, value in os.environ.items() if not name.endswith(("DATABASE_URL", "REDIS_URL"))}
    ended = subprocess.run(
        [sys.executable, "-m", "services.payments", "serve"],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )

    assert ended.returncode == os.EX_CONFIG
    assert "PAYMENTS_DATABASE_URL" in ended.stderr
    assert "REDIS_URL" in ended.stderr
    assert "Traceback" not in ended.stderr
