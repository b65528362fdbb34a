"""The `meterscope` command. Each subcommand lies in a module of its own, imported when it is asked for."""

from importlib import import_module
from typing import Final

import click

# Module and function of each subcommand.
_COMMANDS: Final = {
    "up": ("meterscope.commands.up", "up"),
    "health": ("meterscope.commands.health", "health"),
    "migrate": ("meterscope.commands.migrate", "migrate"),
    "demo": ("meterscope.commands.demo", "demo"),
    "usage": ("meterscope.commands.usage", "usage"),
    "meters": ("meterscope.commands.meters", "meters"),
    "limits": ("meterscope.commands.limits", "limits"),
    "import": ("meterscope.commands.import_", "import_"),
    "trace": ("meterscope.commands.trace", "trace"),
}


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        if cmd_name not in _COMMANDS:
            return None
        module, function = _COMMANDS[cmd_name]
        command: click.Command = getattr(import_module(module), function)
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="meterscope")
def main() -> None:
    """Meterscope meters usage, bills it, collects the money, and watches all of it."""
