"""`run.json` of a data folder: where a running Meterscope listens and which processes it consists of."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from meterscope.supervisor.ports import HOST, OFFSETS, SERVICES

NAME: Final = "run.json"


@dataclass(frozen=True)
class Run:
    """One running Meterscope.

    Attributes:
        addresses: host:port by process name.
        pids: process ids by process name.
        pid: of the supervisor; None when nothing is known but the addresses.
    """

    addresses: dict[str, str]
    pids: dict[str, int]
    pid: int | None = None

    @classmethod
    def of(cls, ports: Mapping[str, int], pids: Mapping[str, int], pid: int | None = None) -> Self:
        """Describe processes on the ports of this machine."""
        return cls({name: f"{HOST}:{port}" for name, port in ports.items()}, dict(pids), pid)

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """Return what runs on the folder, None when nothing says so."""
        try:
            content = json.loads((folder / NAME).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        addresses = {name: content[name] for name in OFFSETS if name in content}
        workers = {f"{name}-worker": address for name, address in content["workers"].items()}
        return cls({**addresses, **workers}, content["pids"], content["pid"])

    def content(self) -> dict[str, Any]:
        """Return it as it stands in the file."""
        workers = {name: self.addresses[f"{name}-worker"] for name in SERVICES}
        servers = {name: address for name, address in self.addresses.items() if not name.endswith("-worker")}
        return {**servers, "workers": workers, "pid": self.pid, "pids": self.pids}
