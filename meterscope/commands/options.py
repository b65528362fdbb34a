"""Options that several subcommands have."""

from pathlib import Path

import click

from meterscope.supervisor.ports import HIGHEST_PORT, RULE

data_dir = click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=".meterscope",
    envvar="METERSCOPE_DATA_DIR",
    show_default=True,
    show_envvar=True,
    help="Folder of the state.",
)
port = click.option(
    "--port",
    "-p",
    type=click.IntRange(1, HIGHEST_PORT),
    help=f"The gateway's port P. The others follow: {RULE}.",
)
