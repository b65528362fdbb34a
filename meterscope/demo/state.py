"""What the demo chose at its first run and keeps in `demo.json` of the data folder, so that a further run repeats it."""

import base64
import secrets
import uuid
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

import orjson

from meterscope.demo.errors import DemoFailed

FILE: Final = "demo.json"
_SECRET_BYTES: Final = 32


@dataclass
class State:
    """The demo's choices.

    Attributes:
        run: names this demo in request ids.
        zone: the customers' time zone, an IANA name.
        month: the month that is billed, such as `2026-10`.
        shift_days: the whole days by which each log moves, by its file's name.
        limit_lines: how many lines of each log are used; all when None.
        customers: the clients that are customers from the beginning.
        latecomers: the clients that become customers after the import.
        declined: the customer whose first payment fails.
        request_limit: the plan's limit on requests.
        webhook_port: where the demo receives webhooks, on loopback.
        webhook_secret: signs them (Standard Webhooks).
        runs: how many runs came to their end.
    """

    zone: str
    month: str
    shift_days: dict[str, int]
    limit_lines: int | None
    customers: list[str]
    latecomers: list[str]
    declined: str
    request_limit: str
    webhook_port: int = 0
    webhook_secret: str = field(
        default_factory=lambda: f"whsec_{base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()}"
    )
    run: str = field(default_factory=lambda: uuid.uuid4().hex)
    runs: int = 0

    @property
    def everybody(self) -> list[str]:
        """All clients that become customers, the busiest first."""
        return [*self.customers, *self.latecomers]

    def request_id(self, *parts: str) -> str:
        """Return the request id of an action: the same in every run of this demo."""
        return "-".join(("demo", self.run, *parts))

    def save(self, data_dir: Path) -> None:
        """Write it, whole or not at all, readable for its owner only."""
        data_dir.mkdir(parents=True, exist_ok=True)
        draft = data_dir / f"{FILE}.new"
        draft.touch(mode=0o600)
        draft.write_bytes(orjson.dumps(asdict(self), option=orjson.OPT_INDENT_2))
        draft.replace(data_dir / FILE)


def load(data_dir: Path) -> State | None:
    """Read what an earlier run chose, None if there was none.

    Raises:
        DemoFailed: the file is not the demo's.
    """
    path = data_dir / FILE
    if not path.exists():
        return None
    try:
        return State(**orjson.loads(path.read_bytes()))
    except (TypeError, ValueError) as error:
        raise DemoFailed(f"{path} cannot be read ({error}): choose another --data-dir, or remove it") from error
