"""Reads access logs in the combined format of Apache and nginx.

The common format, which ends after the size, is read too.
"""

import gzip
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from itertools import islice
from pathlib import Path
from typing import IO, Final, NamedTuple, cast

# The user agent may lack its closing quote: servers cut long lines off.
_LINE: Final = re.compile(
    r"(?P<client>\S+) \S+ \S+ "
    r"\[(?P<day>\d{2})/(?P<month>[A-Z][a-z]{2})/(?P<year>\d{4}):(?P<hour>\d{2}):(?P<minute>\d{2}):(?P<second>\d{2})"
    r" (?P<sign>[+-])(?P<zone_hours>\d{2})(?P<zone_minutes>\d{2})\] "
    r'"(?P<request>(?:[^"\\]|\\.)*)" (?P<status>\d{3}) (?P<size>\d+|-)(?: "(?:[^"\\]|\\.)*"(?: "(?:[^"\\]|\\.)*"?)?)?\s*'
)
_MONTHS: Final = {
    name: number
    for number, name in enumerate("Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(), start=1)  # noqa: SIM905
}
_SHOWN: Final = 120


class MalformedLine(ValueError):
    """The line is no access log line; the text says which part."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request.

    Attributes:
        client: the address or name of who asked.
        time: when the server had it, UTC, to the second.
        method: such as `GET`; empty where the request line is not one of HTTP.
        path: the path and query as sent; the whole request line where it is not one of HTTP.
        status: the HTTP status.
        size: the bytes of the answer's body; `-` in the log is 0.
    """

    client: str
    time: datetime
    method: str
    path: str
    status: int
    size: int


class Line(NamedTuple):
    """A line of a file: its number, from 1, and what it says, or why it says nothing."""

    number: int
    request: Request | None
    error: str = ""


def parse(line: str) -> Request:
    """Parse one line.

    Raises:
        MalformedLine: it is in neither the combined nor the common format.
    """
    match = _LINE.fullmatch(line)
    if match is None:
        raise MalformedLine(f"neither combined nor common log format: {line.strip()[:_SHOWN]!r}")
    method, _, rest = match["request"].partition(" ")
    path, _, protocol = rest.rpartition(" ")
    is_http = protocol.startswith("HTTP/")
    return Request(
        client=match["client"],
        time=_time(match),
        method=method if is_http else "",
        path=path if is_http else match["request"],
        status=int(match["status"]),
        size=0 if match["size"] == "-" else int(match["size"]),
    )


def read(path: Path, *, limit: int | None = None) -> Iterator[Line]:
    """Read a log, plain or gzipped, line by line; at most `limit` lines. Bytes that are no UTF-8 are kept, escaped."""
    with _open(path) as lines:
        for number, line in enumerate(islice(lines, limit), start=1):
            try:
                yield Line(number, parse(line.decode("utf-8", "backslashreplace")))
            except MalformedLine as error:
                yield Line(number, None, str(error))


def count(path: Path, *, limit: int | None = None) -> int:
    """Return how many lines `read` will return."""
    with _open(path) as lines:
        return sum(1 for _ in islice(lines, limit))


def _open(path: Path) -> IO[bytes]:
    with path.open("rb") as file:
        is_gzip = file.read(2) == b"\x1f\x8b"
    return cast("IO[bytes]", gzip.open(path, "rb")) if is_gzip else path.open("rb")


def _time(match: re.Match[str]) -> datetime:
    zone = timedelta(hours=int(match["zone_hours"]), minutes=int(match["zone_minutes"]))
    try:
        local = datetime(
            int(match["year"]),
            _MONTHS[match["month"]],
            int(match["day"]),
            int(match["hour"]),
            int(match["minute"]),
            int(match["second"]),
            tzinfo=timezone(-zone if match["sign"] == "-" else zone),
        )
    except (KeyError, ValueError):
        raise MalformedLine(f"no such time: {match[0][match.start('day') : match.end('zone_minutes')]!r}") from None
    return local.astimezone(UTC)
