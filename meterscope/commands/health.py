"""`meterscope health`: every process of a running Meterscope, and whether it can do its work."""

import json
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import psutil
from rich.console import Console
from rich.table import Table

from meterscope.commands import options
from meterscope.commands.up import DEFAULT_PORT
from meterscope.supervisor import databases, probes
from meterscope.supervisor.ports import ENGINES, listener, ports
from meterscope.supervisor.runfile import Run


@dataclass(frozen=True)
class Process:
    """One process' state: `healthy`, `unhealthy` (there, but it cannot do its work) or `down`."""

    name: str
    pid: int | None
    address: str
    state: str


@click.command()
@options.data_dir
@options.port
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def health(data_dir: Path, port: int | None, *, as_json: bool) -> None:
    """Show every process with its address and state. Exits with 0 if all are healthy, else with 1.

    Without --port it asks the Meterscope that runs on the data folder.
    """
    found = _processes(data_dir.absolute(), port)
    healthy = all(process.state == "healthy" for process in found)
    if as_json:
        content = {"healthy": healthy, "processes": [asdict(process) for process in found]}
        click.echo(json.dumps(content, indent=2))
    else:
        table = Table("process", "address", "pid", "state")
        for process in found:
            style = None if process.state == "healthy" else "bold red"
            table.add_row(process.name, process.address, str(process.pid or ""), process.state, style=style)
        Console(highlight=False).print(table)
    if not healthy:
        raise SystemExit(1)


def _processes(folder: Path, port: int | None) -> list[Process]:
    run = Run.read(folder)
    if run is None or (port is not None and not run.addresses["gateway"].endswith(f":{port}")):
        # Nothing is known but the port: the embedded servers, if there are any, are behind the others.
        others = {name: number for name, number in ports(port or DEFAULT_PORT).items() if name not in ENGINES}
        run = Run.of(others, {})
    known = run
    with ThreadPoolExecutor(len(known.addresses)) as threads:
        return list(threads.map(lambda name: _process(known, folder, name), known.addresses))


def _process(run: Run, folder: Path, name: str) -> Process:
    address = run.addresses[name]
    host, _, port = address.rpartition(":")
    answers: dict[str, Callable[[], bool]] = {
        "postgres": lambda: databases.postgres_answers(folder, int(port)),
        "valkey": lambda: databases.valkey_answers(folder, int(port)),
        "gateway": lambda: probes.http_ready(address),
    }
    if answers.get(name, lambda: probes.grpc_serves(address))():
        state = "healthy"
    else:
        state = "unhealthy" if _listens(host, int(port)) else "down"
    pid = run.pids.get(name)
    if pid is None or not psutil.pid_exists(pid):
        found = listener(int(port))
        pid = found.pid if found else None
    return Process(name, pid, address, state)


def _listens(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True
