"""What is in the logs, counted by the demo itself: what Meterscope says is compared with this.

On purpose nothing here uses the reader of the import.
"""

import gzip
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Final

from meterscope.demo.errors import DemoFailed

_LINE: Final = re.compile(r'(\S+) [^"]*\[([^\]]+)\] ".*?" \d{3} (\d+|-)(?: "|$)')


@dataclass
class Traffic:
    """The traffic of some logs.

    Attributes:
        requests: how many requests each client made.
        bytes: how many bytes each client got.
    """

    requests: Counter[str] = field(default_factory=Counter)
    bytes: Counter[str] = field(default_factory=Counter)

    @property
    def busiest(self) -> list[str]:
        """The clients by their number of requests, most first, ties by address."""
        return sorted(self.requests, key=lambda client: (-self.requests[client], client))

    def of(self, clients: Sequence[str]) -> int:
        """Return the number of requests of these clients."""
        return sum(self.requests[client] for client in clients)


@dataclass(frozen=True)
class Log:
    """One log of the input.

    Attributes:
        path: the file, gzipped.
        first: the earliest time in it.
        last: the latest time in it.
        lines: how many lines are used.
    """

    path: Path
    first: datetime
    last: datetime
    lines: int


def count(folder: Path, limit_lines: int | None) -> tuple[list[Log], Traffic]:
    """Count the logs of a folder, at most `limit_lines` lines of each.

    Raises:
        DemoFailed: there is none, or a line cannot be read.
    """
    logs: list[Log] = []
    traffic = Traffic()
    for path in sorted(folder.glob("*.log.gz")):
        times: list[datetime] = []
        with gzip.open(path, "rt", encoding="utf-8", errors="backslashreplace", newline="\n") as lines:
            for number, line in enumerate(islice(lines, limit_lines), start=1):
                match = _LINE.match(line)
                if match is None:
                    raise DemoFailed(f"{path}:{number} is no access log line: {line.strip()[:100]!r}")
                client, stamp, size = match.groups()
                times.append(datetime.strptime(stamp, "%d/%b/%Y:%H:%M:%S %z"))
                traffic.requests[client] += 1
                traffic.bytes[client] += 0 if size == "-" else int(size)
        logs.append(Log(path, min(times), max(times), len(times)))
    if not logs:
        raise DemoFailed(f"no *.log.gz in {folder}; name the folder with --examples")
    return logs, traffic
