"""An embedded server as a child of this process, for tests and tools."""

import os
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar, Final

import services
from services.kit.embedded import passwords
from services.kit.embedded.errors import EmbeddedError

_START_SECONDS: Final = 30.0
_STOP_SECONDS: Final = 20.0
_POLL_SECONDS: Final = 0.02


class EmbeddedServer(ABC):
    """One server on one folder. It may be started again after `stop` and `kill`, on the same port."""

    program: ClassVar[str]
    stop_signal: ClassVar[signal.Signals]

    def __init__(self, folder: Path, port: int, *, options: tuple[str, ...] = ()) -> None:
        self.folder = folder.resolve()
        self.port = port
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The server's process id.

        Raises:
            EmbeddedError: it is not running.
        """
        if self._process is None:
            raise EmbeddedError(f"{self.program} in {self.folder} is not running")
        return self._process.pid

    def start(self) -> None:
        """Start, and return when it answers.

        Raises:
            EmbeddedError: it ended, or does not answer within 30 s; with the end of its log.
            OSError: the port is in use.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with socket.socket() as holder, self._log.open("ab") as log:
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            holder.bind(("127.0.0.1", self.port))
            self.port = holder.getsockname()[1]
            self._process = subprocess.Popen(  # noqa: S603 - our own module
                [sys.executable, "-m", "services.kit.embedded", self.program, *self._arguments(holder.fileno())],
                cwd=Path(services.__path__[0]).parent,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[holder.fileno()],
                start_new_session=True,
            )
        self._wait_until_ready(self._process)

    def stop(self) -> None:
        """Stop it in order. Nothing happens when it is not running."""
        self._end(self.stop_signal)

    def kill(self) -> None:
        """Kill it with -9, as a crash would."""
        self._end(signal.SIGKILL)

    @abstractmethod
    def url(self) -> str:
        """Where clients connect to, password included."""

    @abstractmethod
    def _answers(self) -> bool:
        """Say whether a client can connect."""

    @property
    def _log(self) -> Path:
        return self.folder / f"{self.program}.log"

    def _arguments(self, port_fd: int) -> list[str]:
        return [
            *("--data-dir", str(self.folder), "--port", str(self.port), "--port-fd", str(port_fd)),
            *("--parent", str(os.getpid()), *self._options),
        ]

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers():
            if process.poll() is not None or time.monotonic() > deadline:
                end = self._log.read_text(encoding="utf-8", errors="replace")[-2000:]
                self.kill()
                raise EmbeddedError(f"{self.program} in {self.folder} did not start: {end}")
            time.sleep(_POLL_SECONDS)

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(number)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class EmbeddedPostgres(EmbeddedServer):
    """PostgreSQL with a superuser `postgres` and a role and database for each service."""

    program = "postgres"
    stop_signal = signal.SIGINT  # the "fast" shutdown: sessions are ended, nothing is lost

    def url(self, database: str = "postgres", user: str = passwords.SUPERUSER) -> str:
        """Where clients of a database connect to as `user`: `postgres` or a service's name."""
        password = passwords.load(self.folder).postgres[user]
        return f"postgresql://{user}:{password}@127.0.0.1:{self.port}/{database}"

    def _answers(self) -> bool:
        import psycopg  # the process that becomes the server imports this package too, and needs no client

        try:
            psycopg.connect(self.url(), connect_timeout=2).close()
        except (psycopg.OperationalError, FileNotFoundError):
            return False
        return True


class EmbeddedValkey(EmbeddedServer):
    """Valkey with a password."""

    program = "valkey"
    stop_signal = signal.SIGTERM

    def url(self, database: int = 0) -> str:
        """Where clients connect to; databases are numbered 0 to 15."""
        return f"redis://:{passwords.load(self.folder).valkey}@127.0.0.1:{self.port}/{database}"

    def _answers(self) -> bool:
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        try:
            with redis.Redis.from_url(self.url(), socket_timeout=2, retry=Retry(NoBackoff(), 0)) as client:
                client.ping()
        except (redis.ConnectionError, redis.TimeoutError):
            return False
        return True


def start_postgres(data_dir: Path, port: int = 0, *, durable: bool = True) -> EmbeddedPostgres:
    """Start PostgreSQL on `data_dir/postgres`, made if it is not there. It ends with this process.

    Args:
        data_dir: made if it is not there.
        port: 0 takes a free one.
        durable: false saves the waits for the disk; a killed process still loses nothing.

    Raises:
        EmbeddedError: with the reason.
    """
    server = EmbeddedPostgres(data_dir, port, options=() if durable else ("--no-fsync",))
    server.start()
    return server


def start_valkey(data_dir: Path, port: int = 0) -> EmbeddedValkey:
    """Start Valkey on `data_dir/valkey`. It ends with this process.

    Args:
        data_dir: made if it is not there.
        port: 0 takes a free one.

    Raises:
        EmbeddedError: with the reason.
    """
    server = EmbeddedValkey(data_dir, port)
    server.start()
    return server
