"""`meterscope up`: everything, until Ctrl-C."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import click
from rich.console import Console
from rich.table import Table

from meterscope.commands import options
from meterscope.supervisor import programs
from meterscope.supervisor.databases import Given
from meterscope.supervisor.errors import SupervisorError
from meterscope.supervisor.folder import DataFolder
from meterscope.supervisor.orphans import stop_orphans
from meterscope.supervisor.ports import ENGINES, Reservations, ports
from meterscope.supervisor.runfile import NAME, Run
from meterscope.supervisor.stack import Stack

DEFAULT_PORT: Final = 8080
_START_SECONDS: Final = 90.0


@click.command()
@options.data_dir
@options.port
@click.option(
    "--grace",
    type=click.FloatRange(min=0),
    default=8.0,
    envvar="METERSCOPE_GRACE_SECONDS",
    show_default=True,
    show_envvar=True,
    help="Seconds that running calls and jobs get when stopping.",
)
@click.option("--quiet", "-q", is_flag=True, help="Print one line when ready.")
def up(data_dir: Path, port: int | None, grace: float, *, quiet: bool) -> None:
    """Start everything; stop it at Ctrl-C.

    PostgreSQL and Valkey are embedded, unless DATABASE_URL (or USAGE_DATABASE_URL, … of all four services) and
    REDIS_URL name servers. The state lies in the data folder and survives a stop, a crash and a kill -9.
    """
    environment = {**os.environ, "METERSCOPE_GRACE_SECONDS": f"{grace:g}"}
    try:
        run(data_dir, port or DEFAULT_PORT, environment, grace_seconds=grace, quiet=quiet)
    except SupervisorError as error:
        raise click.ClickException(str(error)) from error


def run(data_dir: Path, port: int, environment: Mapping[str, str], *, grace_seconds: float, quiet: bool) -> None:
    """Run Meterscope in this process until SIGINT or SIGTERM.

    Args:
        data_dir: the data folder.
        port: the gateway's; all others follow from it.
        environment: what the processes see, besides what is set for them.
        grace_seconds: what they are told to allow for running calls and jobs at a stop.
        quiet: print one line only.

    Raises:
        SupervisorError: it cannot run; nothing is left running.
    """
    messages = Console(stderr=True, highlight=False)

    def report(message: str) -> None:
        messages.print(message, markup=False, soft_wrap=True)

    given = Given.read(environment)
    given.check()
    own = {name: number for name, number in ports(port).items() if name not in ENGINES or name in given.embedded}
    with DataFolder.open(data_dir) as folder:
        # What is killed after that time does not end in order any more: a little more than the processes take.
        kill_after = grace_seconds + 2
        stop_orphans(folder.path, grace_seconds=kill_after, report=report)
        folder.remove(NAME)

        def write_run() -> None:
            folder.write(NAME, Run.of(own, stack.pids, os.getpid()).content())

        stack = Stack(folder, grace_seconds=kill_after, report=report, on_change=write_run)
        with Reservations(own) as held, stack:
            if not _start(stack, folder.path, own, held, given, environment):
                return
            try:
                write_run()
                _announce(Run.of(own, stack.pids), folder.path, quiet=quiet)
                stack.supervise()
                report("stopping")
            finally:
                folder.remove(NAME)


def _start(
    stack: Stack,
    folder: Path,
    own: Mapping[str, int],
    held: Reservations,
    given: Given,
    environment: Mapping[str, str],
) -> bool:
    """Start everything and wait until it is healthy; False if asked to stop meanwhile.

    Making the databases and importing the services are both work for the processor: the servers, which wait for the
    databases by themselves, are imported meanwhile; the others would only take its time and come after.
    """
    stack.add(programs.engines(folder, own, held, given, environment))
    if not stack.wait(lambda: given.are_known(folder), seconds=_START_SECONDS):
        return False
    services = programs.Services(folder, own, given.urls(folder, own), environment)
    stack.add(services.servers())
    if not stack.wait(lambda: stack.unhealthy.isdisjoint(given.embedded), seconds=_START_SECONDS):
        return False
    stack.add([*services.workers(), services.gateway()])
    return stack.wait(lambda: not stack.unhealthy, seconds=_START_SECONDS)


def _announce(run: Run, folder: Path, *, quiet: bool) -> None:
    console = Console(highlight=False)
    gateway = f"http://{run.addresses['gateway']}"
    if quiet:
        console.print(f"meterscope is ready: {gateway} (data in {folder})", soft_wrap=True, markup=False)
        return
    table = Table("process", "address", "pid", title="Meterscope is ready", title_justify="left")
    for name, address in run.addresses.items():
        table.add_row(name, gateway if name == "gateway" else address, str(run.pids.get(name, "")))
    console.print(table)
    for what, where in {
        "dashboard": f"{gateway}/billing",
        "API": f"{gateway}/docs",
        "data": str(folder),
        "logs": str(folder / "logs"),
    }.items():
        console.print(f"{what:10} {where}", soft_wrap=True, markup=False)
    console.print("stop with Ctrl-C")
