"""The command line that every service has: `python -m services.X serve [--migrate] | work | migrate`."""

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from services.kit import logs, migrate, settings, telemetry
from services.kit.config import KitSettings
from services.kit.db import is_unavailable
from services.kit.server import BindError, OpenAddress, Server
from services.kit.worker import Worker


class ServiceSettings(Protocol):
    """What any service's settings have."""

    @property
    def kit(self) -> KitSettings:
        """The kit's own."""

    @property
    def database_url(self) -> str:
        """The service's database."""

    @property
    def database_schema(self) -> str:
        """Its schema there."""


S = TypeVar("S", bound=ServiceSettings)


def run(
    name: str,
    arguments: Sequence[str],
    environ: Mapping[str, str],
    *,
    read: type[S],
    build_server: Callable[[S], Server],
    build_worker: Callable[[S], Worker],
    migrations: Path,
) -> int:
    """Run one process of a service until it is told to stop.

    Args:
        name: such as `usage`.
        arguments: of the command line, without the program's name.
        environ: the environment; it is read here and nowhere later.
        read: the settings class.
        build_server: wires the gRPC server.
        build_worker: wires the worker.
        migrations: the service's Alembic folder.

    Returns:
        The exit status, with the reason on standard error: 78 (EX_CONFIG) for settings that are missing or wrong, 1
        where the process cannot start (an address in use, a schema newer than this version, a database
        that does not answer).
    """
    parser = _parser(name)
    chosen = parser.parse_args(arguments)
    try:
        given = settings.read(read, environ)
    except settings.SettingsError as error:
        sys.stderr.write(f"{parser.prog}: {error}\n")
        return os.EX_CONFIG
    observing = telemetry.setup(name, given.kit, role="worker" if chosen.command == "work" else "server")
    try:
        if chosen.command == "migrate" or getattr(chosen, "migrate", False):
            migrate.migrate(given.database_url, given.database_schema, migrations, name)
        if chosen.command == "serve":
            build_server(given).serve_until_signal()
        elif chosen.command == "work":
            migrate.wait_until_migrated(given.database_url, given.database_schema, migrations, name)
            build_worker(given).run_until_signal()
    except OpenAddress as error:
        sys.stderr.write(f"{parser.prog}: {error}\n")
        return os.EX_CONFIG
    except (BindError, migrate.MigrationsBusy, migrate.NotMigrated, migrate.SchemaTooNew) as error:
        sys.stderr.write(f"{parser.prog}: {error}\n")
        return 1
    except Exception as error:
        if not is_unavailable(error):
            # Here, while it can be sent: the interpreter's hook comes after the shutdown.
            logs.uncaught(error, "interpreter", "uncaught exception")
            raise
        sys.stderr.write(f"{parser.prog}: the database does not answer: {error}\n")
        return 1
    finally:
        observing.shutdown()
    return 0


def _parser(name: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"python -m services.{name}")
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="answer gRPC calls")
    serve.add_argument("--migrate", action="store_true", help="bring the database's schema up to date first")
    commands.add_parser("work", help="run the jobs")
    commands.add_parser("migrate", help="bring the database's schema up to date and exit")
    return parser
