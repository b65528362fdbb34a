"""The spool: batches that could not be sent, on disk, until they can.

A folder holds segments, `0000000001.spool` and so on, that are only ever appended to. A record is one batch: its length,
its CRC-32, the number of its events (big-endian, 4 bytes each), and an IngestEventsRequest. It is on disk (fsync) before
`append` returns. `position` says up to where all is acknowledged; it may lag behind after a crash, and the events then
sent again are duplicates by their ids. A segment is deleted once all of it is acknowledged.

A batch that the server refuses for good goes to `refused/`: its events as JSON lines, as `meterscope import events` takes
them, and beside them the reason. These files are the user's, and no part of the bound.

One process at a time has the folder, by a lock that dies with it. A record that a crash cut off was never said to be
stored: it is cut away when the folder is opened. Anything else that is not as it was written is left alone and refused.
"""

import json
import logging
import os
import struct
import threading
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import filelock

from meterscope.client.errors import SpoolBusy, SpoolDamaged, SpoolFull
from meterscope.usage.v1 import event_service_pb2 as pb

LEAST_BYTES: Final = 64 << 10

_HEADER: Final = struct.Struct(">III")
_SUFFIX: Final = ".spool"
_MOST_SEGMENT_BYTES: Final = 4 << 20
# So many segments at the most: what is delivered gives its room back in such steps.
_SEGMENTS: Final = 8
# Windows would change the ends of lines, and knows no folder that could be synced.
_BINARY: Final = getattr(os, "O_BINARY", 0)
_HAS_FOLDERS_TO_SYNC: Final = os.name == "posix"

_log = logging.getLogger(__name__)


class _Record(NamedTuple):
    segment: int
    offset: int
    length: int
    events: int

    @property
    def end(self) -> int:
        return self.offset + _HEADER.size + self.length


class Spool:
    """The batches of a folder, first in, first out. Safe to share between threads.

    Args:
        folder: made if it is not there. For this spool alone.
        max_bytes: the most bytes of its files.

    Raises:
        SpoolBusy: another client has the folder.
        SpoolDamaged: a file is not as it was written.
        OSError: the folder cannot be used.
    """

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        self._folder = folder
        self.max_bytes = max_bytes
        self._segment_bytes = min(_MOST_SEGMENT_BYTES, max_bytes // _SEGMENTS)
        self._lock = threading.Lock()
        self._records: deque[_Record] = deque()
        self._sizes: dict[int, int] = {}
        folder.mkdir(parents=True, exist_ok=True)
        self._owned = _own(folder)
        try:
            self._last = self._open()
        except BaseException:
            self._owned.release()
            raise

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits."""
        return not self._records

    @property
    def events(self) -> int:
        """How many events wait."""
        with self._lock:
            return sum(record.events for record in self._records)

    @property
    def size(self) -> int:
        """How many bytes the files have."""
        with self._lock:
            return sum(self._sizes.values())

    def has_room(self, size: int) -> bool:
        """Whether so many bytes more stay within the bound."""
        return self.size + _HEADER.size + size <= self.max_bytes

    def append(self, events: Sequence[pb.Event]) -> None:
        """Store a batch durably, behind all others.

        Raises:
            SpoolFull: it would go beyond the bound; it is not stored.
            OSError: the disk refuses; it is not stored.
        """
        content = pb.IngestEventsRequest(events=events).SerializeToString()
        data = _HEADER.pack(len(content), zlib.crc32(content), len(events)) + content
        with self._lock:
            total = sum(self._sizes.values())
            if total + len(data) > self.max_bytes:
                raise SpoolFull(
                    f"the spool {self._folder} holds {total:,} of at most {self.max_bytes:,} bytes: "
                    f"no room for {len(events)} events of {len(data):,} bytes"
                )
            if self._last not in self._sizes or self._sizes[self._last] + len(data) > self._segment_bytes:
                self._last += 1
            offset = self._sizes.get(self._last, 0)
            self._write(self._last, offset, data)
            self._sizes[self._last] = offset + len(data)
            self._records.append(_Record(self._last, offset, len(content), len(events)))

    def head(self) -> list[pb.Event]:
        """Return the oldest batch. It stays until `remove`."""
        with self._lock:
            record = self._records[0]
        content = _read(self._path(record.segment), record.offset + _HEADER.size, record.length)
        return list(pb.IngestEventsRequest.FromString(content).events)

    def remove(self) -> None:
        """Remove the oldest batch: it is acknowledged."""
        with self._lock:
            record = self._records.popleft()
            if self._records and self._records[0].segment == record.segment:
                self._mark(record.segment, record.end)
            else:
                self._mark(record.segment + 1, 0)
                self._path(record.segment).unlink()
                del self._sizes[record.segment]

    def refuse(self, reason: str) -> Path:
        """Remove the oldest batch into `refused/`, since it will never be taken; return the file with its events.

        Raises:
            OSError: the disk refuses; it stays where it is.
        """
        events = self.head()
        with self._lock:
            record = self._records[0]
        folder = self._folder / "refused"
        folder.mkdir(exist_ok=True)
        lines = "".join(f"{json.dumps(_plain(event), ensure_ascii=False)}\n" for event in events)
        # The same again if a crash comes before the batch is removed.
        name = f"{record.segment:010}-{record.offset}-{zlib.crc32(lines.encode()):08x}"
        for path, text in ((folder / f"{name}.txt", f"{reason}\n"), (folder / f"{name}.jsonl", lines)):
            with open(path, "w", encoding="utf-8", newline="\n", opener=_private) as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        _sync(folder)
        self.remove()
        return folder / f"{name}.jsonl"

    def close(self) -> None:
        """Let another process have the folder."""
        self._owned.release()

    def _path(self, segment: int) -> Path:
        return self._folder / f"{segment:010}{_SUFFIX}"

    def _open(self) -> int:
        """Find what waits, and return the number of the last segment."""
        first, begin = self._marked()
        numbers = sorted(int(path.stem) for path in self._folder.glob(f"*{_SUFFIX}"))
        for number in numbers:
            path = self._path(number)
            records = list(_records(path, number, is_last=number == numbers[-1]))
            waiting = [each for each in records if (number, each.offset) >= (first, begin)]
            if waiting:
                self._records += waiting
                self._sizes[number] = records[-1].end
            else:
                path.unlink()
        # A segment that is gone, though some of it waited, was moved away: another one of its number would pass for it.
        return max([first if begin else first - 1, *numbers])

    def _write(self, segment: int, offset: int, data: bytes) -> None:
        path = self._path(segment)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | _BINARY, 0o600)
        try:
            os.lseek(descriptor, offset, os.SEEK_SET)
            written = 0
            while written < len(data):
                written += os.write(descriptor, data[written:])
            os.fsync(descriptor)
        except OSError:
            os.ftruncate(descriptor, offset)
            raise
        finally:
            os.close(descriptor)
        if offset == 0:
            _sync(self._folder)

    def _marked(self) -> tuple[int, int]:
        try:
            segment, offset = map(int, (self._folder / "position").read_text(encoding="ascii").split())
        except (FileNotFoundError, ValueError):
            # Lost with the machine's power: what is there is sent again.
            return 1, 0
        return segment, offset

    def _mark(self, segment: int, offset: int) -> None:
        # By a rename, so that it is never half written. Without fsync: an older position only sends duplicates.
        new = self._folder / "position.new"
        new.write_text(f"{segment} {offset}\n", encoding="ascii")
        new.replace(self._folder / "position")


def _own(folder: Path) -> filelock.BaseFileLock:
    # Any thread may close the spool. Where the system has no such locks this fails, rather than to own it by a file that
    # a crash leaves.
    lock = filelock.FileLock(folder / "lock", timeout=0, mode=0o600, thread_local=False, fallback_to_soft=False)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise SpoolBusy(f"the spool {folder} is in use by another client; give each one a folder of its own") from None
    return lock


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _plain(event: pb.Event) -> dict[str, Any]:
    """Return an event as `/v1/events:ingest` takes it."""
    texts = {
        "id": event.id,
        "source": event.source,
        "type": event.type,
        "customer_id": event.customer_id,
        "customer_key": event.customer_key,
        "time": event.time.ToJsonString(),
        "trace_id": event.trace_id,
    }
    return {
        **{name: text for name, text in texts.items() if text},
        "quantities": {name: quantity.value for name, quantity in event.quantities.items()},
        "attributes": dict(event.attributes),
    }


def _records(path: Path, segment: int, *, is_last: bool) -> Iterator[_Record]:
    """Walk a segment's records; cut off what a crash left of the last one."""
    size = path.stat().st_size
    offset = 0
    with path.open("rb") as file:
        while offset < size:
            header = file.read(_HEADER.size)
            length, crc, events = _HEADER.unpack(header) if len(header) == _HEADER.size else (size, 0, 0)
            record = _Record(segment, offset, length, events)
            content = file.read(length) if record.end <= size else b""
            if record.end > size or zlib.crc32(content) != crc or not length:
                # Only the very last record can have been cut off: all before it were on disk when it was begun.
                if not is_last or (record.end < size and header.strip(b"\0")):
                    raise SpoolDamaged(
                        f"{path} is damaged at byte {offset} of {size}: move it away to go on without it"
                    )
                _log.warning("cut off %d bytes of an unfinished record from %s", size - offset, path)
                os.truncate(path, offset)
                return
            yield record
            offset = record.end


def _read(path: Path, offset: int, length: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(length)


def _sync(folder: Path) -> None:
    if not _HAS_FOLDERS_TO_SYNC:
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
