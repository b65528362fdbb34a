"""The Meterscope that the demo uses: one that runs on the data folder already, or a child of its own."""

import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import httpx

from meterscope.demo import waiting
from meterscope.demo.errors import DemoFailed
from meterscope.supervisor.runfile import NAME, Run

LOG: Final = "demo-up.log"
_READY_SECONDS: Final = 90.0
_STOP_SECONDS: Final = 30.0
_TAIL_LINES: Final = 15


class Stack:
    """A running Meterscope.

    Attributes:
        addresses: where each process listens, host:port by name.
        is_ours: whether the demo started it.
    """

    def __init__(self, addresses: Mapping[str, str], process: subprocess.Popen[bytes] | None) -> None:
        self.addresses = addresses
        self._process = process

    @property
    def is_ours(self) -> bool:
        """Whether the demo started it."""
        return self._process is not None

    @property
    def pid(self) -> int | None:
        """The process that Ctrl-C would stop; None if the demo did not start it."""
        return self._process.pid if self._process else None

    def stop(self) -> None:
        """Stop it if the demo started it.

        Raises:
            DemoFailed: it did not stop well.
        """
        if self._process is None:
            return
        self._process.send_signal(signal.SIGINT)
        try:
            code = self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            raise DemoFailed(f"`meterscope up` (process {self._process.pid}) does not stop") from None
        if code != 0:
            raise DemoFailed(f"`meterscope up` stopped with exit code {code}")


def find(data_dir: Path) -> Stack | None:
    """Return the Meterscope that runs on the folder, None if none does."""
    run = Run.read(data_dir)
    return Stack(run.addresses, None) if run and _is_ready(run) else None


def start(data_dir: Path, port: int | None, environ: Mapping[str, str]) -> Stack:
    """Start `meterscope up` on the folder and wait until it is ready.

    Args:
        data_dir: the data folder.
        port: the gateway's port; up's own default when None.
        environ: its environment.

    Raises:
        DemoFailed: it ended, or is not ready within 90 s.
    """
    data_dir.mkdir(parents=True, exist_ok=True)
    (data_dir / NAME).unlink(missing_ok=True)
    command = [sys.executable, "-m", "meterscope", "up", "--data-dir", str(data_dir), "--quiet"]
    if port is not None:
        command += ["--port", str(port)]
    log = data_dir / LOG
    with log.open("wb") as output:
        # A session of its own: Ctrl-C reaches the demo alone, which then stops it in order.
        process = subprocess.Popen(  # noqa: S603 - our own program
            command, env=dict(environ), stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )

    def ready() -> Stack | None:
        if process.poll() is not None:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-_TAIL_LINES:])
            raise DemoFailed(f"`meterscope up` ended with exit code {process.returncode}:\n{tail}")
        run = Run.read(data_dir)
        return Stack(run.addresses, process) if run and _is_ready(run) else None

    try:
        return waiting.until(f"`meterscope up` is ready (see {log})", ready, seconds=_READY_SECONDS)
    except BaseException:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait(_STOP_SECONDS)
        raise


def _is_ready(run: Run) -> bool:
    try:
        return httpx.get(f"http://{run.addresses['gateway']}/health/ready", timeout=2).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False
