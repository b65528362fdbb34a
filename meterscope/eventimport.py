"""Imports events from a file of JSON lines: CloudEvents (with `specversion`), or events as `/v1/events:ingest` takes them.

They go to the gateway, which knows both forms, as the text that stands in the file: no digit is lost on the way. Each
event has its own id, so that the same file again counts nothing.
"""

import gzip
import json
import re
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, NamedTuple, NoReturn

import httpx

MOST_PROBLEMS: Final = 1_000

# An event has at most 64 KiB, in any encoding.
_MOST_LINE_BYTES: Final = 1 << 20
_BATCH_EVENTS: Final = 1_000
_BATCH_BYTES: Final = 8 << 20
_TRY_FOR: Final = 60.0
_TIMEOUT: Final = 30.0
_CLOUD: Final = "application/cloudevents-batch+json"
_OWN: Final = "application/json"
_AT: Final = re.compile(r"events\[(?P<place>\d+)\](?:\.(?P<field>.*))?")
_TRY_AGAIN: Final = {429, 503, 504}
_BAD_REQUEST: Final = 400


class ImportFailed(Exception):
    """The gateway could not be asked, or answered what was not understood. What went in before is in."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A line that did not go in: its number from 1, and why."""

    line: int
    reason: str
    field: str
    message: str


@dataclass
class Report:
    """What became of a file.

    Attributes:
        lines: lines read, without empty ones.
        outcomes: events by outcome, as the gateway names it: `ACCEPTED`, …; `REJECTED` counts lines that are no event.
        problems: the first 1,000 lines that did not go in.
        seconds: how long it took.
    """

    lines: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    problems: list[Problem] = field(default_factory=list)
    seconds: float = 0.0

    def refuse(self, problem: Problem, outcome: str = "REJECTED") -> None:
        """Count a line that did not go in."""
        self.outcomes[outcome] += 1
        if len(self.problems) < MOST_PROBLEMS:
            self.problems.append(problem)


class _Line(NamedTuple):
    number: int
    text: bytes
    is_cloud: bool


def run(address: str, path: Path, *, on_progress: Callable[[int], None] = lambda _bytes: None) -> Report:
    """Send a file.

    Args:
        address: the gateway's host:port.
        path: the file, plain or gzipped.
        on_progress: told how many bytes of the file have been read.

    Raises:
        ImportFailed: the gateway did not answer for a minute, or not as expected.
        OSError: the file cannot be read.
    """
    report = Report()
    started = time.perf_counter()
    with httpx.Client(base_url=f"http://{address}", timeout=_TIMEOUT) as client:
        try:
            for batch in _batches(path, report, on_progress):
                for is_cloud in (True, False):
                    _send(client, [line for line in batch if line.is_cloud is is_cloud], report)
        except (EOFError, zlib.error) as error:
            raise ImportFailed(f"{path} is cut off or damaged: {error}") from error
    report.problems.sort(key=lambda problem: problem.line)
    report.seconds = time.perf_counter() - started
    return report


def _batches(path: Path, report: Report, on_progress: Callable[[int], None]) -> Iterator[list[_Line]]:
    batch: list[_Line] = []
    size = 0
    with path.open("rb") as raw:
        file = gzip.GzipFile(fileobj=raw) if path.suffix == ".gz" else raw
        number = 0
        while text := file.readline(_MOST_LINE_BYTES):
            number += 1
            if len(text) == _MOST_LINE_BYTES and not text.endswith(b"\n"):
                while (rest := file.readline(_MOST_LINE_BYTES)) and not rest.endswith(b"\n"):
                    pass
                report.lines += 1
                report.refuse(Problem(number, "TOO_LARGE", "", "the line has more than 1 MiB; an event at most 64 KiB"))
                continue
            line = _checked(number, text.strip(), report)
            if line is None:
                continue
            batch.append(line)
            size += len(line.text)
            if len(batch) == _BATCH_EVENTS or size >= _BATCH_BYTES:
                yield batch
                on_progress(raw.tell())
                batch, size = [], 0
        yield batch
        on_progress(raw.tell())


def _checked(number: int, text: bytes, report: Report) -> _Line | None:
    """Return a line that can be sent, so that what is wrong with one line is told of that line alone."""
    if not text:
        return None
    report.lines += 1
    try:
        value = json.loads(text.decode(), object_pairs_hook=_unique, parse_constant=_no_constant, parse_int=str)
    except (ValueError, RecursionError) as error:
        report.refuse(Problem(number, "INVALID_JSON", "", f"no JSON in UTF-8: {error}"))
        return None
    if not isinstance(value, dict):
        report.refuse(Problem(number, "WRONG_TYPE", "", "no JSON object"))
        return None
    is_cloud = "specversion" in value
    if is_cloud and value.get("time") is None:
        report.refuse(Problem(number, "MISSING", "time", "in a file each event must say when it happened"))
        return None
    return _Line(number, text, is_cloud)


def _send(client: httpx.Client, lines: list[_Line], report: Report) -> None:
    """Send lines of one form and note what became of each."""
    while lines:
        texts = b",".join(line.text for line in lines)
        if lines[0].is_cloud:
            answer = _post(client, "/v1/events", b"[" + texts + b"]", _CLOUD)
        else:
            answer = _post(client, "/v1/events:ingest", b'{"events":[' + texts + b"]}", _OWN)
        if answer.status_code == httpx.codes.OK:
            _note(lines, answer.json()["results"], report)
            return
        # A field that there is none of spoils the whole request: those lines are told, the others sent again.
        wrong = _faults(answer)
        if not wrong:
            raise ImportFailed(_told(answer))
        for place, problem in wrong.items():
            report.refuse(replace(problem, line=lines[place].number))
        lines = [line for place, line in enumerate(lines) if place not in wrong]


def _note(lines: list[_Line], results: list[dict[str, Any]], report: Report) -> None:
    for line, result in zip(lines, results, strict=True):
        if result["outcome"] in {"REJECTED", "CONFLICT"}:
            problem = Problem(line.number, result["reason"] or result["outcome"], result["field"], result["message"])
            report.refuse(problem, result["outcome"])
        else:
            report.outcomes[result["outcome"]] += 1


def _post(client: httpx.Client, path: str, body: bytes, media_type: str) -> httpx.Response:
    """Send a request, again and again while the service is away: ids make that safe."""
    give_up = time.monotonic() + _TRY_FOR
    while True:
        wait = 1.0
        try:
            answer = client.post(path, content=body, headers={"content-type": media_type})
            if answer.status_code not in _TRY_AGAIN:
                return answer
            wait = float(answer.headers.get("retry-after", "1"))
            told = _told(answer)
        except httpx.TransportError as error:
            told = f"{client.base_url} does not answer: {error}"
        if time.monotonic() + wait > give_up:
            raise ImportFailed(told)
        time.sleep(wait)


def _faults(answer: httpx.Response) -> dict[int, Problem]:
    """Return what is wrong with single events of a refused request, by place."""
    found: dict[int, Problem] = {}
    if answer.status_code != _BAD_REQUEST:
        return found
    content = answer.json()
    for error in content["errors"]:
        match = _AT.fullmatch(error["field"])
        if match:
            # The problem's reason is that of its first fault.
            reason = content["reason"] if error is content["errors"][0] else "INVALID_ARGUMENT"
            problem = Problem(0, reason, match["field"] or "", error["message"])
            found.setdefault(int(match["place"]), problem)
    return found


def _told(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["detail"])
    except (ValueError, KeyError):
        return f"the gateway answered {answer.status_code}"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")
