"""What a killed `up` leaves behind is stopped by the next one; nobody else's process is touched."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from meterscope.supervisor.orphans import MARK, stop_orphans
from services.kit.embedded import start_postgres
from tests.ports import free_ports

HOUR = "import signal, time; print('runs', flush=True); time.sleep(3600)"
STUBBORN = HOUR.replace("time;", "time; signal.signal(signal.SIGTERM, signal.SIG_IGN);")


class Left:
    """Starts processes as if an `up` that is gone had."""

    def __init__(self) -> None:
        self.processes: list[subprocess.Popen[str]] = []

    def start(self, code: str, folder: Path) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", code], env={**os.environ, MARK: str(folder)}, stdout=subprocess.PIPE, text=True
        )
        self.processes.append(process)
        assert process.stdout is not None
        process.stdout.readline()
        return process


@pytest.fixture
def left() -> Iterator[Left]:
    left = Left()
    yield left
    for process in left.processes:
        with process:
            process.kill()


def test_processes_of_the_folder_are_stopped_and_others_left_alone(left: Left, tmp_path: Path) -> None:
    ours, others = left.start(HOUR, tmp_path), left.start(HOUR, tmp_path / "other")
    reports: list[str] = []
    stop_orphans(tmp_path, grace_seconds=5, report=reports.append)
    assert not psutil.pid_exists(ours.pid)
    assert others.poll() is None
    assert reports == ["stopping 1 processes that an earlier run left behind"]


def test_an_orphan_that_does_not_stop_is_killed(left: Left, tmp_path: Path) -> None:
    orphan = left.start(STUBBORN, tmp_path)
    stop_orphans(tmp_path, grace_seconds=0.2, report=lambda _: None)
    assert not psutil.pid_exists(orphan.pid)


def test_a_postgresql_that_outlived_its_supervisor_is_shut_down_in_order(tmp_path: Path) -> None:
    start_postgres(tmp_path, durable=False).stop()
    port = free_ports()
    command = [
        sys.executable,
        "-m",
        "services.kit.embedded",
        "postgres",
        "--data-dir",
        str(tmp_path),
        "--port",
        str(port),
    ]
    environment = {**os.environ, MARK: str(tmp_path)}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        while "ready to accept connections" not in server.stderr.readline():
            pass
        stop_orphans(tmp_path, grace_seconds=10, report=lambda _: None)
        assert server.wait(5) == 0
        assert "database system is shut down" in server.stderr.read()
    assert not [
        process for process in psutil.process_iter(["cwd"]) if process.info["cwd"] == str(tmp_path / "postgres")
    ]
