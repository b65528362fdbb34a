"""`meterscope up` as a user runs it, with everything real. One start serves most tests."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from meterscope.supervisor.orphans import MARK
from tests.eventually import eventually
from tests.ports import free_ports

METERSCOPE = (sys.executable, "-c", "from meterscope.cli import main; main()")
PROCESSES = {
    *("gateway", "usage", "billing", "payments", "alerts"),
    *("usage-worker", "billing-worker", "payments-worker", "alerts-worker", "postgres", "valkey"),
}
# Machines that run tests are busy.
PATIENCE_SECONDS = 60


class Up:
    """One `meterscope up`, restartable on its folder and ports."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_ports(20)
        self.process: subprocess.Popen[bytes] | None = None
        own = ("DATABASE_URL", "REDIS_URL", "METERSCOPE_", "OTEL_")
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith(own)}

    def start(self, **variables: str) -> None:
        """Start, and return when it is ready or has ended."""
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        command = [*METERSCOPE, "up", "--data-dir", str(self.folder), "--port", str(self.port)]
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                command, env={**self.environment, **variables}, stdout=output, stderr=output
            )
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self.process.poll() is None and not (self.folder / "run.json").exists():
            assert time.monotonic() < deadline, self.output.read_text()

    @property
    def output(self) -> Path:
        return self.folder.with_name("output")

    def run(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.folder / "run.json").read_text())
        return content

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*METERSCOPE, *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )

    def health(self) -> tuple[int, dict[str, Any]]:
        """Return the exit status and the processes by name."""
        done = self.command("health", "--data-dir", str(self.folder), "--port", str(self.port), "--json")
        return done.returncode, {process["name"]: process for process in json.loads(done.stdout)["processes"]}

    def processes(self) -> list[psutil.Process]:
        """Return the living processes on the folder."""
        return [
            process
            for process in psutil.process_iter(["environ", "status"])
            if (process.info["environ"] or {}).get(MARK) == str(self.folder)
            and process.info["status"] != psutil.STATUS_ZOMBIE
        ]

    def end(self, number: signal.Signals) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_SECONDS)


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    up = Up(tmp_path_factory.mktemp("up") / "data")
    up.start()
    assert up.process is not None
    assert up.process.poll() is None, up.output.read_text()
    yield up
    if up.process.poll() is None:
        up.end(signal.SIGTERM)


def test_run_json_says_where_everything_is(up: Up) -> None:
    run = up.run()
    assert {name: run[name] for name in ("gateway", "usage", "billing", "payments", "alerts")} == {
        "gateway": f"127.0.0.1:{up.port}",
        "usage": f"127.0.0.1:{up.port + 1}",
        "billing": f"127.0.0.1:{up.port + 2}",
        "payments": f"127.0.0.1:{up.port + 3}",
        "alerts": f"127.0.0.1:{up.port + 4}",
    }
    assert set(run["pids"]) == PROCESSES
    # Beside them a process may just have had a command run, as libraries do to learn about the machine.
    assert eventually(lambda: {process.pid for process in up.processes()} == set(run["pids"].values()))


def test_health_shows_every_process_with_its_pid_and_address(up: Up) -> None:
    status, processes = up.health()
    assert status == 0
    assert {name: process["pid"] for name, process in processes.items()} == up.run()["pids"]
    assert {process["state"] for process in processes.values()} == {"healthy"}
    assert processes["usage-worker"]["address"] == f"127.0.0.1:{up.port + 11}"


def test_a_second_one_on_the_same_ports_is_refused_and_changes_nothing(up: Up, tmp_path: Path) -> None:
    refused = up.command("up", "--data-dir", str(tmp_path / "other"), "--port", str(up.port))
    assert refused.returncode == 1
    assert f"port {up.port + 1} (usage) is in use: process {up.run()['pids']['usage']}" in refused.stderr
    assert "--port" in refused.stderr
    assert up.health()[0] == 0


def test_a_second_one_on_the_same_folder_is_refused(up: Up) -> None:
    refused = up.command("up", "--data-dir", str(up.folder), "--port", str(free_ports(20)))
    assert refused.returncode == 1
    assert f"{up.folder} is in use: `meterscope up` runs on it as process {up.run()['pid']}" in refused.stderr


def test_the_databases_are_migrated_again_without_harm(up: Up) -> None:
    done = up.command("migrate", "--data-dir", str(up.folder))
    assert done.returncode == 0, done.stderr
    assert up.health()[0] == 0


def test_the_gateway_shows_the_metrics_of_every_process_without_a_collector(up: Up) -> None:
    def measured() -> set[str]:
        families = httpx.get(f"http://{up.run()['gateway']}/metrics/json", timeout=30).json()["families"]
        return {series["labels"]["job"] for family in families for series in family["series"]}

    ours = {f"meterscope/{name}" for name in PROCESSES - {"postgres", "valkey"}}
    eventually(lambda: measured() == ours, seconds=PATIENCE_SECONDS)


@pytest.mark.parametrize("name", ["usage", "billing-worker", "gateway", "valkey", "postgres"])
def test_a_killed_process_comes_back(up: Up, name: str) -> None:
    before = up.run()["pids"]
    os.kill(before[name], signal.SIGKILL)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while up.run()["pids"][name] == before[name] or up.health()[0] != 0:
        assert time.monotonic() < deadline, up.output.read_text()
    after = up.run()["pids"]
    assert {other for other in PROCESSES if after[other] != before[other]} == {name}


def test_after_a_kill_its_processes_end_and_the_next_start_works_on_the_same_data(up: Up) -> None:
    left = up.processes()
    assert up.end(signal.SIGKILL) == -signal.SIGKILL
    (up.folder / "run.json").unlink()
    up.start()
    assert up.health()[0] == 0, up.output.read_text()
    assert psutil.wait_procs(left, timeout=0)[1] == []
    assert {process.pid for process in up.processes()} == set(up.run()["pids"].values())


def test_ctrl_c_stops_everything(up: Up) -> None:
    processes = up.processes()
    assert len(processes) == len(PROCESSES)
    assert up.end(signal.SIGINT) == 0
    assert psutil.wait_procs(processes, timeout=0)[1] == []
    assert not (up.folder / "run.json").exists()
    status, states = up.health()
    assert status == 1
    assert {process["state"] for process in states.values()} == {"down"}


def test_migrating_without_a_database_says_how_to_name_one(tmp_path: Path) -> None:
    refused = Up(tmp_path / "data").command("migrate", "--data-dir", str(tmp_path))
    assert refused.returncode == 1
    assert "no database: set DATABASE_URL" in refused.stderr


def test_a_wrong_variable_is_named_and_nothing_stays(tmp_path: Path) -> None:
    up = Up(tmp_path / "data")
    up.start(METERSCOPE_GRPC_THREADS="many")
    assert up.process is not None
    assert up.process.returncode == 1
    assert "METERSCOPE_GRPC_THREADS 'many' is not a whole number" in up.output.read_text()
    assert up.processes() == []
