"""The whole of Meterscope as its users run it: `meterscope up` in a folder of its own."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from eventually import eventually

from tests.ports import free_ports


@dataclass
class Running:
    """A running `meterscope up`."""

    process: subprocess.Popen[bytes]
    data_dir: Path
    port: int

    @property
    def run(self) -> dict[str, Any]:
        """What `run.json` says now: addresses and pids."""
        found: dict[str, Any] = json.loads((self.data_dir / "run.json").read_text())
        return found

    def channel(self, service: str) -> grpc.Channel:
        return grpc.insecure_channel(self.run[service])


def start(data_dir: Path, port: int | None = None, **environ: str) -> Running:
    """Start `meterscope up` on free ports, or from this one on, and wait until it is ready."""
    port = port or free_ports(20)
    command = [
        str(Path(sys.executable).with_name("meterscope")),
        "up",
        "--quiet",
        "--data-dir",
        str(data_dir),
        "--port",
        str(port),
    ]
    process = subprocess.Popen(command, env={**os.environ, **environ})
    running = Running(process, data_dir, port)

    def ready() -> bool:
        assert process.poll() is None, "meterscope up ended before it was ready"
        return (data_dir / "run.json").exists()

    eventually(ready, seconds=60)
    return running


def stop(running: Running) -> int:
    """Stop as Ctrl-C does and return the exit code."""
    running.process.send_signal(signal.SIGINT)
    return running.process.wait(60)
