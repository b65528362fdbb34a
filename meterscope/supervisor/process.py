"""One supervised child: a program, its process, when it is started again."""

import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from meterscope.supervisor.log import Log

_FIRST_DELAY_SECONDS: Final = 0.2
_LONGEST_DELAY_SECONDS: Final = 10.0
_STEADY_SECONDS: Final = 30.0


@dataclass(frozen=True)
class Program:
    """What a child runs.

    Attributes:
        name: as in run.json and the log's file name.
        rank: lower ones start first and stop last; equals start and stop together.
        arguments: what follows `python`.
        address: host:port that it listens on.
        environment: the whole environment of the process.
        probe: says whether it can do its work.
        stop_signal: asks it to end in order.
        port_holder: a socket that the first process takes over with its port, if it cannot share one.
    """

    name: str
    rank: int
    arguments: tuple[str, ...]
    address: str
    environment: Mapping[str, str]
    probe: Callable[[], bool]
    stop_signal: signal.Signals = signal.SIGTERM
    port_holder: socket.socket | None = None


class Child:
    """The process of a program, and of those that died the count."""

    def __init__(self, program: Program, log: Log) -> None:
        self.program = program
        self.log = log
        self.is_healthy = False
        self.was_healthy = False
        self.deaths = 0
        self.restart_at = 0.0
        self._started_at = 0.0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._process.pid if self._process else None

    def start(self, now: float) -> None:
        """Start the process. It leads a session of its own: Ctrl-C on the terminal reaches the supervisor only."""
        holder = self.program.port_holder
        held = holder is not None and holder.fileno() >= 0
        with self.log.open() as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own modules
                [sys.executable, *self.program.arguments, *self._take_over(holder if held else None)],
                env=self.program.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=[holder.fileno()] if holder and held else [],
            )
        if holder:
            holder.close()
        self._started_at = now
        self.is_healthy = False

    def reap(self, now: float) -> int | None:
        """Return the exit status of a process that has ended since the last call, and set when to start again."""
        status = self._process.poll() if self._process else None
        if status is None:
            return None
        self._process = None
        self.is_healthy = False
        self.deaths = 1 if now - self._started_at >= _STEADY_SECONDS else self.deaths + 1
        self.restart_at = now + min(_FIRST_DELAY_SECONDS * 2 ** (self.deaths - 1), _LONGEST_DELAY_SECONDS)
        return status

    def probe(self) -> bool:
        """Ask the process whether it can do its work, and remember the answer."""
        self.is_healthy = self.program.probe()
        self.was_healthy |= self.is_healthy
        return self.is_healthy

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process, if there is one."""
        if self._process:
            self._process.send_signal(number)

    def _take_over(self, holder: socket.socket | None) -> tuple[str, ...]:
        return ("--port-fd", str(holder.fileno())) if holder else ()


def describe(status: int) -> str:
    """Say how a process ended, from `subprocess`' return code."""
    if status < 0:
        return f"was killed by {signal.Signals(-status).name}"
    return f"ended with exit status {status}"
