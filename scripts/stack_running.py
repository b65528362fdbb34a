"""The stack's processes: started on free ports, waited for, stopped in order. Nothing that already runs is taken over."""

# ruff: noqa: T201 - a program's output

import ctypes
import fcntl
import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from stack_programs import CONFIGURATION, StackError

HOST: Final = "127.0.0.1"
_READY_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 30.0
_ASK_EVERY_SECONDS: Final = 0.1
_SHOWN_BYTES: Final = 3000
_PR_SET_PDEATHSIG: Final = 1
_OK: Final = 200


@dataclass(frozen=True)
class Ports:
    """Who listens where."""

    otlp_grpc: int = 4317
    otlp_http: int = 4318
    collector_health: int = 13133
    prometheus: int = 9090
    jaeger_http: int = 16686
    jaeger_grpc: int = 16685
    jaeger_otlp: int = 14317
    jaeger_health: int = 13134
    loki_http: int = 3100
    loki_grpc: int = 9095

    @classmethod
    def in_a_row(cls, first: int) -> Self:
        """Return as many ports as are needed, from `first` on."""
        return cls(*range(first, first + len(fields(cls))))

    @property
    def addresses(self) -> dict[str, str]:
        """What people and tests use, by name, as host:port."""
        return {
            "OTLP gRPC": f"{HOST}:{self.otlp_grpc}",
            "OTLP HTTP": f"{HOST}:{self.otlp_http}",
            "collector health": f"{HOST}:{self.collector_health}",
            "Prometheus": f"{HOST}:{self.prometheus}",
            "Jaeger": f"{HOST}:{self.jaeger_http}",
            "Loki": f"{HOST}:{self.loki_http}",
        }


@dataclass(frozen=True)
class Program:
    """What is run, and where it says that it is healthy."""

    name: str
    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    health: str


class Stack:
    """The running programs. The collector starts last and stops first: what it still holds stays on its disk queue."""

    def __init__(self, programs: Mapping[str, Path], folder: Path, ports: Ports) -> None:
        """Start everything.

        Raises:
            StackError: the folder is in use, or a port.
        """
        self.folder = folder
        self._lock = _lock(folder)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._binaries = programs
        self._programs = plan(folder, ports)
        try:
            _refuse_taken(ports)
            for program in self._programs:
                self.start(program.name)
        except BaseException:
            self.stop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    @property
    def pids(self) -> dict[str, int]:
        """Each program's process id."""
        return {name: process.pid for name, process in self._processes.items()}

    def start(self, name: str) -> None:
        """Start a program that does not run."""
        (program,) = [program for program in self._programs if program.name == name]
        self._processes[name] = _start(self._binaries[name], program, self.folder)

    def kill(self, name: str) -> None:
        """End a program as a crash would; what it has on disk stays."""
        process = self._processes.pop(name)
        process.kill()
        process.wait()

    def wait_until_healthy(self) -> None:
        """Wait until each program says so itself.

        Raises:
            StackError: one ended, or took longer than a minute.
        """
        deadline = time.monotonic() + _READY_SECONDS
        waiting = list(self._programs)
        while waiting:
            self._refuse_ended()
            waiting = [program for program in waiting if not _answers(program.health)]
            if waiting and time.monotonic() > deadline:
                names = ", ".join(program.name for program in waiting)
                raise StackError(
                    f"not healthy after {_READY_SECONDS:.0f} s: {names}; logs are in {self.folder / 'logs'}"
                )
            time.sleep(_ASK_EVERY_SECONDS if waiting else 0)

    def supervise(self) -> None:
        """Go on until a signal.

        Raises:
            StackError: a program ended by itself.
        """
        while True:
            self._refuse_ended()
            time.sleep(0.5)

    def stop(self) -> None:
        """Stop in order, the collector first; by force what takes longer than half a minute."""
        for name, process in reversed(self._processes.items()):
            process.terminate()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                print(f"{name} did not end within {_STOP_SECONDS:.0f} s and was killed")
                process.kill()
                process.wait()
        self._processes.clear()
        (self.folder / "stack.json").unlink(missing_ok=True)
        os.close(self._lock)

    def _refuse_ended(self) -> None:
        for name, process in self._processes.items():
            if process.poll() is not None:
                log = self.folder / "logs" / f"{name}.log"
                end = log.read_bytes()[-_SHOWN_BYTES:].decode(errors="replace")
                raise StackError(f"{name} ended with {process.returncode}; its log ({log}) ends:\n{end}")


def plan(folder: Path, ports: Ports) -> list[Program]:
    """Return the programs in the order in which they start."""
    data = {name: str(folder / name) for name in ("otelcol", "prometheus", "jaeger", "loki")}
    return [
        Program(
            "prometheus",
            (
                f"--config.file={CONFIGURATION / 'prometheus' / 'prometheus.yml'}",
                f"--storage.tsdb.path={data['prometheus']}",
                "--storage.tsdb.retention.time=35d",
                "--web.enable-otlp-receiver",
                # The second: a series begins with a 0 at the start that OTLP names, else `rate` misses what is counted first.
                "--enable-feature=exemplar-storage,created-timestamp-zero-ingestion",
                f"--web.listen-address={HOST}:{ports.prometheus}",
            ),
            {},
            f"http://{HOST}:{ports.prometheus}/-/ready",
        ),
        Program(
            "loki",
            (f"-config.file={CONFIGURATION / 'loki' / 'loki.yaml'}", "-config.expand-env=true"),
            {
                "LOKI_HOST": HOST,
                "LOKI_HTTP_PORT": str(ports.loki_http),
                "LOKI_GRPC_PORT": str(ports.loki_grpc),
                "LOKI_DATA": data["loki"],
            },
            f"http://{HOST}:{ports.loki_http}/ready",
        ),
        Program(
            "jaeger",
            (f"--config={CONFIGURATION / 'jaeger' / 'jaeger.yaml'}",),
            {
                "JAEGER_OTLP": f"{HOST}:{ports.jaeger_otlp}",
                "JAEGER_HTTP": f"{HOST}:{ports.jaeger_http}",
                "JAEGER_GRPC": f"{HOST}:{ports.jaeger_grpc}",
                "JAEGER_HEALTH": f"{HOST}:{ports.jaeger_health}",
                "JAEGER_DATA": data["jaeger"],
            },
            f"http://{HOST}:{ports.jaeger_health}/status",
        ),
        Program(
            "otelcol",
            (f"--config={CONFIGURATION / 'collector.yaml'}",),
            {
                "COLLECTOR_OTLP_GRPC": f"{HOST}:{ports.otlp_grpc}",
                "COLLECTOR_OTLP_HTTP": f"{HOST}:{ports.otlp_http}",
                "COLLECTOR_HEALTH": f"{HOST}:{ports.collector_health}",
                "COLLECTOR_JAEGER": f"{HOST}:{ports.jaeger_otlp}",
                "COLLECTOR_PROMETHEUS": f"{HOST}:{ports.prometheus}",
                "COLLECTOR_LOKI": f"{HOST}:{ports.loki_http}",
                "COLLECTOR_DATA": data["otelcol"],
            },
            f"http://{HOST}:{ports.collector_health}/",
        ),
    ]


def _start(binary: Path, program: Program, folder: Path) -> "subprocess.Popen[bytes]":
    (folder / program.name).mkdir(mode=0o700, parents=True, exist_ok=True)
    (folder / "logs").mkdir(mode=0o700, exist_ok=True)
    with (folder / "logs" / f"{program.name}.log").open("ab") as log:
        return subprocess.Popen(  # noqa: S603 - built from pinned sources
            [str(binary), *program.arguments],
            env={**os.environ, **program.environment},
            cwd=folder / program.name,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=_end_with_parent,  # noqa: PLW1509 - there are no threads
        )


def _end_with_parent() -> None:
    """Ask the kernel for SIGTERM when the parent ends, even by a kill -9."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _lock(folder: Path) -> int:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(folder / "stack.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise StackError(f"a stack runs on {folder}: stop it, or name another folder with --data-dir") from None
    return lock


def _refuse_taken(ports: Ports) -> None:
    taken = []
    for field, port in zip(fields(ports), astuple(ports), strict=True):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                taken.append(f"{port} ({field.name})")
    if taken:
        raise StackError(f"ports in use: {', '.join(taken)}; stop what is there, or choose others with --port")


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 - loopback
            return int(answer.status) == _OK
    except (urllib.error.URLError, OSError):
        return False


def get_json(url: str) -> "dict[str, object]":
    """Return what an API on loopback answers.

    Raises:
        StackError: it refuses, with its own words.
    """
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:  # noqa: S310 - loopback
            found: dict[str, object] = json.load(answer)
            return found
    except urllib.error.HTTPError as error:
        raise StackError(f"{url}: {error.code}: {error.read(500).decode(errors='replace')}") from error
