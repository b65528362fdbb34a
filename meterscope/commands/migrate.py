"""`meterscope migrate`: bring every service's database to this version's tables."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Final

import click

from meterscope.commands import options
from meterscope.supervisor.databases import Given
from meterscope.supervisor.ports import SERVICES
from meterscope.supervisor.runfile import Run

# A service reads all of its variables, though a migration needs no Redis.
_UNUSED: Final = "redis://127.0.0.1:6379/0"


@click.command()
@options.data_dir
def migrate(data_dir: Path) -> None:
    """Bring the databases to this version's tables.

    They are those that DATABASE_URL names, or those of the Meterscope that runs on the data folder.

    `meterscope up` migrates by itself. Servers that run meanwhile go on working.
    """
    environment = {**os.environ, **_urls(data_dir.absolute())}
    for service in SERVICES:
        command = [sys.executable, "-m", f"services.{service}", "migrate"]
        if subprocess.run(command, env=environment, check=False).returncode != 0:  # noqa: S603 - our own module
            raise click.ClickException(f"{service} was not migrated; those before it were")
        click.echo(f"{service}: up to date")


def _urls(folder: Path) -> dict[str, str]:
    given = Given.read(os.environ)
    run = Run.read(folder)
    ports = {name: int(address.rpartition(":")[2]) for name, address in run.addresses.items()} if run else {}
    if "postgres" in given.embedded and "postgres" not in ports:
        raise click.ClickException(
            "no database: set DATABASE_URL (or USAGE_DATABASE_URL, … of all four services), "
            f"or start `meterscope up` (nothing runs on {folder})"
        )
    if "valkey" in given.embedded and "valkey" not in ports:
        given = replace(given, redis=_UNUSED)
    return given.urls(folder, ports)
