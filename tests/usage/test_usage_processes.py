"""`python -m services.usage`: real processes, killed while they work."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest
from eventually import eventually
from json_lines import json_lines
from usage_harness import Alerts, Client, event

from meterscope.usage.v1 import event_service_pb2 as pb
from services.kit.channel import open_channel
from services.kit.config import KitSettings
from services.kit.settings import read


@dataclass(frozen=True)
class Process:
    popen: subprocess.Popen[bytes]
    output: Path

    def address(self) -> str:
        """Where it listens, as it says itself: its port is a free one."""

        def told() -> str:
            return next(
                (str(line["address"]) for line in json_lines(self.output) if line["message"] == "listening"), ""
            )

        return eventually(told)


@pytest.fixture
def trace_file(tmp_path: Path) -> Path:
    return tmp_path / "spans.jsonl"


@pytest.fixture
def start(environment: Mapping[str, str], trace_file: Path, tmp_path: Path) -> Iterator[Callable[..., Process]]:
    running: list[subprocess.Popen[bytes]] = []

    def run(*arguments: str) -> Process:
        output = tmp_path / f"{arguments[0]}-{len(running)}.log"
        environ = {**os.environ, **environment, "METERSCOPE_TRACE_FILE": str(trace_file)}
        with output.open("wb") as out:
            popen = subprocess.Popen(
                [sys.executable, "-m", "services.usage", *arguments], stdout=out, stderr=out, env=environ
            )
        running.append(popen)
        return Process(popen, output)

    yield run
    for popen in running:
        popen.terminate()
        assert popen.wait(20) in (0, -9)


def test_one_trace_leads_from_the_ingest_to_the_alert(
    start: Callable[..., Process], trace_file: Path, alerts: Alerts
) -> None:
    server = start("serve", "--migrate")
    address = server.address()
    start("work")
    with open_channel(address, read(KitSettings, {})) as channel:
        client = Client.on(channel)
        client.create_meter("requests")
        customer = client.put_customer(limits={"requests": "2"}, thresholds=[100])
        client.ingest(event(customer), event(customer))
        eventually(lambda: alerts.thresholds(customer) == [("requests", 100)])

    wanted = {"meterscope.usage.v1.EventService/IngestEvents", "threshold requests 100%", "send raise_signal"}
    eventually(lambda: wanted <= {span["name"] for span in json_lines(trace_file)})
    found = {span["name"]: span for span in json_lines(trace_file)}
    ingest = found["meterscope.usage.v1.EventService/IngestEvents"]
    threshold = found["threshold requests 100%"]
    # The parent is the very span that took the event in, and that span's trace is kept.
    assert threshold["parent_id"] == ingest["context"]["span_id"]
    assert threshold["context"]["trace_id"] == ingest["context"]["trace_id"]
    assert ingest["attributes"]["meterscope.keep"] is True
    assert ingest["attributes"]["meterscope.events.accepted"] == 2
    assert alerts.trace_ids(customer) == {ingest["context"]["trace_id"].removeprefix("0x")}


def test_killed_processes_lose_nothing_and_double_nothing(start: Callable[..., Process]) -> None:
    server, worker = start("serve", "--migrate"), start("work")
    with open_channel(server.address(), read(KitSettings, {})) as channel:
        client = Client.on(channel)
        client.create_meter("bytes", quantity="bytes")
        customer = client.put_customer()

    sent = 0
    for kill in ("worker", "server", "worker", "server"):
        with open_channel(server.address(), read(KitSettings, {})) as channel:
            client = Client.on(channel)
            for _ in range(20):
                batch = [event(customer, quantities={"bytes": "1"}) for _ in range(100)]
                assert client.ingest(*batch).accepted == 100
                sent += 100
            unanswered = pb.IngestEventsRequest(events=[event(customer, quantities={"bytes": "1"}) for _ in range(500)])
            call = client.events.IngestEvents.future(unanswered, timeout=10)
            if kill == "server":
                server.popen.kill()
                server.popen.wait()
                assert call.exception() is not None or call.result().accepted == 500
                server = start("serve")
            else:
                worker.popen.kill()
                worker.popen.wait()
                assert call.result().accepted == 500
                worker = start("work")
        with open_channel(server.address(), read(KitSettings, {})) as channel:
            # Sent again, the batch counts once, whether the kill came before its commit or behind it.
            again = Client.on(channel).events.IngestEvents(unanswered)
            assert again.accepted + again.duplicate == 500
            sent += 500

    with open_channel(server.address(), read(KitSettings, {})) as channel:
        client = Client.on(channel)
        eventually(lambda: client.total(customer, "bytes") == sent)


def test_a_missing_variable_is_named(environment: dict[str, str], tmp_path: Path) -> None:
    environ = {name: value for name, value in environment.items() if name != "REDIS_URL"}
    run = subprocess.run(
        [sys.executable, "-m", "services.usage", "work"],
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), **environ},
        capture_output=True,
        text=True,
        check=False,
    )

    assert run.returncode == os.EX_CONFIG == 78
    assert "REDIS_URL" in run.stderr


def test_a_database_that_is_away_is_said_so_and_nothing_is_acknowledged(
    environment: dict[str, str], tmp_path: Path
) -> None:
    output = tmp_path / "serve.log"
    environ = {**os.environ, **environment, "DATABASE_URL": "postgresql://usage:x@127.0.0.1:1/usage"}
    with output.open("wb") as out:
        popen = subprocess.Popen([sys.executable, "-m", "services.usage", "serve"], stdout=out, stderr=out, env=environ)
    try:
        with open_channel(Process(popen, output).address(), read(KitSettings, {})) as channel:
            request = pb.IngestEventsRequest(events=[event("cus_1", time=datetime.now(UTC))])
            with pytest.raises(grpc.RpcError) as caught:
                Client.on(channel).events.IngestEvents(request, timeout=5)
            assert caught.value.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
    finally:
        popen.terminate()
        popen.wait(20)
