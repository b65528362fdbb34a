"""Which process listens where, and holding those ports before anything is started.

A second grpcio server would share a port silently (SO_REUSEPORT). So each port is bound first without that option,
which fails if anybody else has it, then opened to sharing: our children join, a second `up` is refused.
"""

import errno
import socket
from collections.abc import Mapping
from types import TracebackType
from typing import Final, Self

import psutil

from meterscope.supervisor.errors import SupervisorError

HOST: Final = "127.0.0.1"
SERVICES: Final = ("usage", "billing", "payments", "alerts")
ENGINES: Final = ("postgres", "valkey")
# What is added to the gateway's port.
OFFSETS: Final = {
    "gateway": 0,
    **{name: 1 + number for number, name in enumerate(SERVICES)},
    **{name: 5 + number for number, name in enumerate(ENGINES)},
    **{f"{name}-worker": 11 + number for number, name in enumerate(SERVICES)},
}
HIGHEST_PORT: Final = 65535 - max(OFFSETS.values())
RULE: Final = (
    "P+1 usage, P+2 billing, P+3 payments, P+4 alerts, P+5 PostgreSQL, P+6 Valkey, P+11 to P+14 the workers' health"
)


def ports(gateway: int) -> dict[str, int]:
    """Return every process' port by name."""
    return {name: gateway + offset for name, offset in OFFSETS.items()}


class Reservations:
    """Held ports. A holder never listens, so all connections go to the child that does."""

    def __init__(self, wanted: Mapping[str, int]) -> None:
        """Hold all of them or none.

        Raises:
            SupervisorError: with each port that is in use, what it is for and who has it.
        """
        self._holders: dict[str, socket.socket] = {}
        problems: list[str] = []
        for name, port in wanted.items():
            try:
                self._holders[name] = _hold(port)
            except OSError as error:
                problems.append(_why_not(name, port, error))
        if problems:
            self.close()
            raise SupervisorError("\n".join([*problems, "stop what is there, or choose other ports with --port"]))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def holder(self, name: str) -> socket.socket:
        """Return the socket that holds a port."""
        return self._holders[name]

    def close(self) -> None:
        """Let go of all ports."""
        for holder in self._holders.values():
            holder.close()


def _hold(port: int) -> socket.socket:
    holder = socket.socket()
    try:
        # Connections of an earlier run that still linger must not block it.
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind((HOST, port))
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    except OSError:
        holder.close()
        raise
    return holder


def _why_not(name: str, port: int, error: OSError) -> str:
    if error.errno != errno.EADDRINUSE:
        return f"port {port} ({name}) cannot be had: {error.strerror}"
    owner = listener(port)
    has_it = f"process {owner.pid} ({owner.name()}) has it" if owner else "another process has it"
    return f"port {port} ({name}) is in use: {has_it}"


def listener(port: int) -> psutil.Process | None:
    """Return the process that listens on a TCP port, None when nothing does or it cannot be told."""
    try:
        for connection in psutil.net_connections("tcp"):
            # An address is (host, port), or empty.
            if connection.status == psutil.CONN_LISTEN and connection.laddr[1:] == (port,) and connection.pid:
                return psutil.Process(connection.pid)
    except psutil.Error:
        return None
    return None
