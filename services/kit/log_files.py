"""Log files, for those who run without Loki: in LOG_DIR, five for each process, rotated, compressed, kept for 30 days.

    usage.combined.log      every line                        usage-worker.combined.log  of the next process
    usage.error.log         ERROR and FATAL                   usage.2.combined.log       of a second usage server
    usage.payouts.log       lines about a payout (`payout_id`)
    usage.exceptions.log    what nobody caught (`uncaught`)
    usage.rejections.log    what nobody caught of asyncio's tasks and callbacks

A file is set aside as `usage.combined.2026-11-21.1.log` with the first line of another day (UTC) or when it is full,
and compressed on a thread of its own. No process writes another's files: each holds the lock of its names.
"""

import fcntl
import gzip
import logging
import os
import queue
import re
import shutil
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Final

_RULES: Final[Mapping[str, Callable[[logging.LogRecord], bool]]] = {
    "combined": lambda _record: True,
    "error": lambda record: record.levelno >= logging.ERROR,
    "payouts": lambda record: hasattr(record, "payout_id"),
    "exceptions": lambda record: getattr(record, "uncaught", "asyncio") != "asyncio",
    "rejections": lambda record: getattr(record, "uncaught", "") == "asyncio",
}
_SET_ASIDE: Final = re.compile(r"(?P<stem>.+)\.(?P<day>\d{4}-\d\d-\d\d)\.(?P<number>\d+)\.log(?P<gz>\.gz)?")
_DRAFT: Final = ".part"
_FOLDER_MODE: Final = 0o750
_FILE_MODE: Final = 0o640
_STOP_SECONDS: Final = 2.0


@dataclass(frozen=True)
class Limits:
    """How much is kept.

    Attributes:
        bytes: of a file until it is set aside.
        age: of files that were set aside, by the day of their lines.
        files: that were set aside, of each kind and process; the oldest go first.
    """

    bytes: int = 20_000_000
    age: timedelta = timedelta(days=30)
    files: int = 100


class LogFiles(logging.Handler):
    """Writes the formatter's lines to the files of one process.

    A disk that is full, or a folder that cannot be written, fails nobody: the lines are counted, standard error says so
    once, and the files say how many are missing when they can be written again.
    """

    def __init__(self, folder: Path, service: str, limits: Limits) -> None:
        """Prepare; the first line opens the files.

        Args:
            folder: made if need be.
            service: such as `usage-worker`: the beginning of the files' names.
            limits: how much is kept.
        """
        super().__init__()
        self.lost = 0
        self._folder = folder
        self._service = service
        self._limits = limits
        self._lock_file = -1
        self._files: dict[str, _File] = {}
        self._keeper = _Keeper(folder, limits)

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line to each file that it belongs to."""
        try:
            line = self.format(record).encode() + b"\n"
        except Exception:  # noqa: BLE001 - as every handler of the standard library
            self.handleError(record)
            return
        day = datetime.fromtimestamp(record.created, UTC).date()
        try:
            self._write(record, line, day)
        except OSError as error:
            self.lost += 1
            if self.lost == 1:
                _tell(f"log lines are lost: {self._folder} cannot be written: {error.strerror or error}")
            return
        if self.lost:
            self._tell_of_loss(record, day)

    def close(self) -> None:
        """Close the files; compressing gets 2 s, and what is left of it is done at the next start."""
        super().close()
        self.acquire()
        try:
            for file in self._files.values():
                file.close()
            self._files = {}
            # While it still compresses, the names are not the next one's.
            if self._keeper.stop() and self._lock_file >= 0:
                os.close(self._lock_file)
                self._lock_file = -1
        finally:
            self.release()

    def _write(self, record: logging.LogRecord, line: bytes, day: date) -> None:
        if not self._files:
            self._open(day)
        for kind, file in self._files.items():
            if _RULES[kind](record) and (aside := file.write(line, day)) is not None:
                self._keeper.keep(aside, day)

    def _open(self, day: date) -> None:
        self._folder.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
        names = self._claim()
        self._files = {kind: _File(self._folder / f"{names}.{kind}.log", self._limits.bytes) for kind in _RULES}
        self._keeper.catch_up(names, day)

    def _claim(self) -> str:
        """Return names that no other process has, and hold them until this one ends, however it ends."""
        number = 1
        while True:
            names = self._service if number == 1 else f"{self._service}.{number}"
            held = os.open(self._folder / f".{names}.lock", os.O_RDWR | os.O_CREAT, _FILE_MODE)
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(held)
                number += 1
                continue
            except OSError:
                os.close(held)
                raise
            self._lock_file = held
            return names

    def _tell_of_loss(self, record: logging.LogRecord, day: date) -> None:
        lost, self.lost = self.lost, 0
        _tell(f"{self._folder} can be written again; {lost} log lines are missing")
        told = logging.LogRecord(__name__, logging.WARNING, __file__, 0, "log lines are missing", None, None)
        told.created = record.created
        told.lines = lost
        with suppress(OSError):
            self._write(told, self.format(told).encode() + b"\n", day)


class _File:
    """One file, written line by line: a line is there whole or not at all."""

    def __init__(self, path: Path, most: int) -> None:
        self._path = path
        self._most = most
        self._fd = -1
        self._size = 0
        self._day = date.min

    def write(self, line: bytes, day: date) -> Path | None:
        """Append a line; return the file that was set aside before it, if one was.

        Raises:
            OSError: the line is not there.
        """
        if self._fd < 0:
            self._open(day)
        aside = self._set_aside(day) if self._is_over(line, day) else None
        written = os.write(self._fd, line)
        if written < len(line):
            os.ftruncate(self._fd, self._size)
            raise OSError("the disk is full")
        self._size += written
        return aside

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self, day: date) -> None:
        self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, _FILE_MODE)
        status = os.fstat(self._fd)
        self._size = status.st_size
        # Of an earlier process: its last line's.
        self._day = datetime.fromtimestamp(status.st_mtime, UTC).date() if self._size else day

    def _is_over(self, line: bytes, day: date) -> bool:
        if not self._size:
            self._day = day
            return False
        # A line that was stamped just before midnight may come just after one of the new day.
        return day > self._day or self._size + len(line) > self._most

    def _set_aside(self, day: date) -> Path:
        stem = self._path.name.removesuffix(".log")
        number = 1 + max(
            (found.number for found in _aside(self._path.parent, stem) if found.day == self._day), default=0
        )
        aside = self._path.with_name(f"{stem}.{self._day}.{number}.log")
        self._path.rename(aside)
        self.close()
        self._open(day)
        return aside


@dataclass(frozen=True)
class _Aside:
    """A file that was set aside."""

    path: Path
    stem: str
    day: date
    number: int
    is_compressed: bool


class _Keeper:
    """Compresses and deletes on a thread of its own: no line waits for it."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        self._folder = folder
        self._limits = limits
        self._todo: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def keep(self, aside: Path, day: date) -> None:
        """Compress a file and delete what is too old on `day`."""
        self._do(lambda: self._compress(aside))
        self._do(lambda: self._delete(day))

    def catch_up(self, names: str, day: date) -> None:
        """Do what an earlier process of these names left undone, and delete what is too old."""
        self._do(lambda: self._finish(names))
        self._do(lambda: self._delete(day))

    def stop(self) -> bool:
        """Say whether it has ended within 2 s."""
        if self._thread is not None:
            self._todo.put(None)
            self._thread.join(_STOP_SECONDS)
        return self._thread is None or not self._thread.is_alive()

    def _do(self, task: Callable[[], None]) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="log-files", daemon=True)
            self._thread.start()
        self._todo.put(task)

    def _run(self) -> None:
        told = False
        while (task := self._todo.get()) is not None:
            try:
                task()
            except OSError as error:
                if not told:
                    _tell(f"old log files stay as they are: {error}")
                told = True

    def _finish(self, names: str) -> None:
        for kind in _RULES:
            stem = f"{names}.{kind}"
            for draft in self._folder.glob(f"{stem}.*{_DRAFT}"):
                draft.unlink(missing_ok=True)
            for found in _aside(self._folder, stem):
                if not found.is_compressed:
                    self._compress(found.path)

    def _compress(self, aside: Path) -> None:
        done = aside.with_name(f"{aside.name}.gz")
        draft = done.with_name(f"{done.name}{_DRAFT}")
        try:
            with aside.open("rb") as plain, gzip.open(draft, "wb") as packed:
                shutil.copyfileobj(plain, packed)
            draft.replace(done)
        except FileNotFoundError:
            # It was old enough to be deleted.
            return
        finally:
            draft.unlink(missing_ok=True)
        aside.unlink(missing_ok=True)

    def _delete(self, day: date) -> None:
        """Delete what is too old, whoever wrote it, and of each kind what is too much."""
        kept: dict[str, list[_Aside]] = {}
        for found in _aside(self._folder):
            if day - found.day > self._limits.age:
                found.path.unlink(missing_ok=True)
            else:
                kept.setdefault(found.stem, []).append(found)
        for group in kept.values():
            group.sort(key=lambda found: (found.day, found.number))
            for found in group[: max(0, len(group) - self._limits.files)]:
                found.path.unlink(missing_ok=True)


def _aside(folder: Path, stem: str | None = None) -> list[_Aside]:
    """Return the files that were set aside, of one stem or of all; nothing else that lies in the folder."""
    found = []
    for path in folder.iterdir():
        match = _SET_ASIDE.fullmatch(path.name)
        if match is None or match["stem"].rpartition(".")[2] not in _RULES or stem not in (None, match["stem"]):
            continue
        with suppress(ValueError):  # no day of the calendar: not ours
            day = date.fromisoformat(match["day"])
            found.append(_Aside(path, match["stem"], day, int(match["number"]), match["gz"] is not None))
    return found


def _tell(what: str) -> None:
    # Not by a log line: that would come back here.
    with suppress(OSError, ValueError):
        sys.stderr.write(f"meterscope: {what}\n")
