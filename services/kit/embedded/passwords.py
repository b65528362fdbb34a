"""The generated passwords of a data folder's servers, in `secrets.json`, readable by its owner only."""

import json
import os
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

FILE_NAME: Final = "secrets.json"
SUPERUSER: Final = "postgres"
# Each service owns a database of its own name through a role of its own name.
SERVICES: Final = ("usage", "billing", "payments", "alerts")
_BYTES: Final = 24


@dataclass(frozen=True)
class Passwords:
    """`postgres` by role, the superuser's included; `valkey` of its default user. All are safe in URLs and SQL."""

    postgres: dict[str, str]
    valkey: str


def load(folder: Path) -> Passwords:
    """Return the folder's passwords, made and stored at the first call. Two processes may call it at once."""
    file = folder / FILE_NAME
    if not file.exists():
        _create(file)
    return Passwords(**json.loads(file.read_text(encoding="utf-8")))


def _create(file: Path) -> None:
    fresh = Passwords(
        postgres={role: secrets.token_urlsafe(_BYTES) for role in (SUPERUSER, *SERVICES)},
        valkey=secrets.token_urlsafe(_BYTES),
    )
    draft = file.with_name(f"{file.name}.{os.getpid()}")
    draft.touch(mode=0o600)
    draft.write_text(json.dumps(asdict(fresh), indent=2) + "\n", encoding="utf-8")
    try:
        os.link(draft, file)  # unlike a rename, refuses to replace what another process has just made
    except FileExistsError:
        return
    finally:
        draft.unlink()
