"""The programs that make up Meterscope, and the environment of each."""

import os
import signal
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

from meterscope.supervisor import databases, probes
from meterscope.supervisor.databases import Given
from meterscope.supervisor.orphans import MARK
from meterscope.supervisor.ports import HOST, SERVICES, Reservations
from meterscope.supervisor.process import Program

_ENGINE: Final = 0
_WORKER: Final = 1
_SERVER: Final = 2
_GATEWAY: Final = 3

_ANSWERS: Final = {"postgres": databases.postgres_answers, "valkey": databases.valkey_answers}
# PostgreSQL takes SIGTERM for "when the last client has gone"; SIGINT ends the sessions and loses nothing.
_STOP: Final = {"postgres": signal.SIGINT, "valkey": signal.SIGTERM}


def engines(
    folder: Path, ports: Mapping[str, int], held: Reservations, given: Given, environment: Mapping[str, str]
) -> list[Program]:
    """Return the embedded servers that are needed.

    Args:
        folder: the data folder, absolute.
        ports: by name.
        held: the ports' reservations; these servers take theirs over.
        given: the servers that need no embedding.
        environment: the caller's.
    """
    return [
        Program(
            name=name,
            rank=_ENGINE,
            arguments=(
                *("-m", "services.kit.embedded", name, "--data-dir", str(folder)),
                *("--port", str(ports[name]), "--parent", str(os.getpid())),
            ),
            address=f"{HOST}:{ports[name]}",
            environment={**environment, MARK: str(folder)},
            probe=partial(_ANSWERS[name], folder, ports[name]),
            stop_signal=_STOP[name],
            port_holder=held.holder(name),
        )
        for name in given.embedded
    ]


class Services:
    """The servers, the workers and the gateway: Python programs, each with a second or so of imports."""

    def __init__(
        self, folder: Path, ports: Mapping[str, int], urls: Mapping[str, str], environment: Mapping[str, str]
    ) -> None:
        """Prepare.

        Args:
            folder: the data folder, absolute.
            ports: by name.
            urls: the variables that name PostgreSQL and Redis.
            environment: the caller's; it is passed on.
        """
        own = {MARK: str(folder), "METERSCOPE_DATA_DIR": str(folder)}
        self._environment = {**environment, **urls, **addresses(ports), **own}
        self._ports = ports

    def servers(self) -> list[Program]:
        """Return the gRPC servers. They migrate their databases before they serve."""
        return [
            self._program(name, _SERVER, probes.grpc_serves, f"services.{name}", "serve", "--migrate")
            for name in SERVICES
        ]

    def workers(self) -> list[Program]:
        """Return the workers."""
        return [
            self._program(f"{name}-worker", _WORKER, probes.grpc_serves, f"services.{name}", "work")
            for name in SERVICES
        ]

    def gateway(self) -> Program:
        """Return the gateway."""
        return self._program("gateway", _GATEWAY, probes.http_ready, "gateway")

    def _program(self, name: str, rank: int, probe: Callable[[str], bool], *module: str) -> Program:
        address = f"{HOST}:{self._ports[name]}"
        arguments = ("-m", "services.kit.supervised", str(os.getpid()), *module)
        return Program(name, rank, arguments, address, self._environment, partial(probe, address))


def addresses(ports: Mapping[str, int]) -> dict[str, str]:
    """Return the variables that say where each process listens, and where metrics go without a collector."""
    return {
        "METERSCOPE_GATEWAY_ADDRESS": f"{HOST}:{ports['gateway']}",
        **{f"METERSCOPE_{name.upper()}_ADDRESS": f"{HOST}:{ports[name]}" for name in SERVICES},
        **{f"METERSCOPE_{name.upper()}_WORKER_ADDRESS": f"{HOST}:{ports[f'{name}-worker']}" for name in SERVICES},
        "METERSCOPE_METRICS_SINK": f"{HOST}:{ports['alerts']}",
    }
