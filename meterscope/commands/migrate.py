"""`meterscope migrate`: bring every service's database to this version's tables."""

import os
import subprocess
import sys
from pathlib import Path

import click

from meterscope.commands import options
from meterscope.supervisor.databases import Given, postgres_url
from meterscope.supervisor.ports import SERVICES
from meterscope.supervisor.runfile import Run


@click.command()
@options.data_dir
def migrate(data_dir: Path) -> None:
    """Bring the databases to this version's tables.

    They are those that DATABASE_URL names, or those of the Meterscope that runs on the data folder.

    `meterscope up` migrates by itself. Servers that run meanwhile go on working.
    """
    given = Given.read(os.environ)
    folder = data_dir.absolute()
    run = Run.read(folder)
    embedded = run.addresses.get("postgres") if run else None
    for service in SERVICES:
        if service in given.databases:
            url = given.databases[service][1]
        elif embedded:
            url = postgres_url(folder, int(embedded.rpartition(":")[2]), service)
        else:
            raise click.ClickException(
                f"no database for {service}: set DATABASE_URL or {service.upper()}_DATABASE_URL, "
                f"or start `meterscope up` (nothing runs on {folder})"
            )
        command = [sys.executable, "-m", f"services.{service}", "migrate"]
        environment = {**os.environ, f"{service.upper()}_DATABASE_URL": url}
        if subprocess.run(command, env=environment, check=False).returncode != 0:  # noqa: S603 - our own module
            raise click.ClickException(f"{service} was not migrated; those before it were")
        click.echo(f"{service}: up to date")
