"""Where the data lives: the servers that the environment names, or else embedded ones."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from meterscope.supervisor import probes
from meterscope.supervisor.errors import SupervisorError
from meterscope.supervisor.ports import HOST, SERVICES

_SECRETS: Final = "secrets.json"


@dataclass(frozen=True)
class Given:
    """The servers that the environment names.

    Attributes:
        databases: the variable's name and its URL, by service.
        redis: the URL, empty when none is named.
    """

    databases: dict[str, tuple[str, str]]
    redis: str

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Self:
        """Read `DATABASE_URL`, `USAGE_DATABASE_URL`, …, `REDIS_URL`."""
        databases = {}
        for service in SERVICES:
            names = (f"{service.upper()}_DATABASE_URL", "DATABASE_URL")
            named = next((name for name in names if environment.get(name)), None)
            if named:
                databases[service] = (named, environment[named])
        return cls(databases, environment.get("REDIS_URL", ""))

    @property
    def embedded(self) -> tuple[str, ...]:
        """The servers that have to be embedded."""
        postgres = ("postgres",) if len(self.databases) < len(SERVICES) else ()
        return postgres if self.redis else (*postgres, "valkey")

    def check(self) -> None:
        """Connect to each.

        Raises:
            SupervisorError: with the variables that cannot be connected to, and why.
        """
        reasons = [
            *((name, probes.postgres_problem(url)) for name, url in sorted(set(self.databases.values()))),
            *([("REDIS_URL", probes.redis_problem(self.redis))] if self.redis else []),
        ]
        problems = [f"{name}: cannot connect: {reason}" for name, reason in reasons if reason is not None]
        if problems:
            raise SupervisorError("\n".join([*problems, "correct it, or unset it to have an embedded server"]))

    def are_known(self, folder: Path) -> bool:
        """Say whether `urls` can be told: an embedded server makes its passwords when it first prepares the folder."""
        return not self.embedded or (folder / _SECRETS).exists()

    def urls(self, folder: Path, ports: Mapping[str, int]) -> dict[str, str]:
        """Return every process' URL variables: what was given, and the embedded servers' for the rest.

        Args:
            folder: the data folder; of a folder for which `are_known`.
            ports: of the embedded servers, by name.
        """
        urls = {
            f"{service.upper()}_DATABASE_URL": self.databases[service][1]
            if service in self.databases
            else postgres_url(folder, ports["postgres"], service)
            for service in SERVICES
        }
        return {**urls, "REDIS_URL": self.redis or valkey_url(folder, ports["valkey"])}


def postgres_url(folder: Path, port: int, service: str) -> str:
    """Return the embedded PostgreSQL's URL of a service's database.

    Raises:
        FileNotFoundError: it has not been prepared yet.
    """
    return f"postgresql://{service}:{_secrets(folder)['postgres'][service]}@{HOST}:{port}/{service}"


def valkey_url(folder: Path, port: int) -> str:
    """Return the embedded Valkey's URL.

    Raises:
        FileNotFoundError: it has not been prepared yet.
    """
    return f"redis://:{_secrets(folder)['valkey']}@{HOST}:{port}/0"


def postgres_answers(folder: Path, port: int) -> bool:
    """Say whether the embedded PostgreSQL takes connections."""
    try:
        return probes.postgres_problem(postgres_url(folder, port, SERVICES[0])) is None
    except FileNotFoundError:
        return False


def valkey_answers(folder: Path, port: int) -> bool:
    """Say whether the embedded Valkey takes connections."""
    try:
        return probes.redis_problem(valkey_url(folder, port)) is None
    except FileNotFoundError:
        return False


def _secrets(folder: Path) -> dict[str, Any]:
    secrets: dict[str, Any] = json.loads((folder / _SECRETS).read_text(encoding="utf-8"))
    return secrets
