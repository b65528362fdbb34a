"""The data folder: one Meterscope's state. It is made, checked and locked before anything in it is touched."""

import fcntl
import json
import os
import stat
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from meterscope.supervisor.errors import SupervisorError

LAYOUT: Final = 1
_MARKER: Final = "layout.json"
_LOCK: Final = "up.lock"


class DataFolder:
    """A data folder that this process alone uses, until it is closed."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock = lock

    @classmethod
    def open(cls, path: Path) -> Self:
        """Make the folder if need be, lock it, check what it holds.

        Raises:
            SupervisorError: it cannot be written, is in use, or was written by another version.
        """
        path = path.absolute()
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Checked before the lock file is made: another version's folder stays as it is.
            _check_layout(path)
            lock = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        except FileExistsError:
            raise SupervisorError(f"{path} is a file: name a folder with --data-dir") from None
        except OSError as error:
            raise SupervisorError(_why_not_writable(path, error)) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(lock, 20).decode()
            os.close(lock)
            raise SupervisorError(
                f"{path} is in use: `meterscope up` runs on it as process {owner}; stop that one, "
                "or name another folder with --data-dir"
            ) from None
        os.truncate(lock, 0)
        os.pwrite(lock, str(os.getpid()).encode(), 0)
        folder = cls(path, lock)
        folder.write(_MARKER, {"layout": LAYOUT})
        return folder

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        os.close(self._lock)

    def write(self, name: str, content: object) -> None:
        """Write a JSON file; readers see the old one or the new one, never a half."""
        draft = self.path / f"{name}.new"
        draft.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        draft.replace(self.path / name)

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        (self.path / name).unlink(missing_ok=True)

    def log_file(self, name: str) -> Path:
        """Return where a process' log goes."""
        logs = self.path / "logs"
        logs.mkdir(mode=0o700, exist_ok=True)
        return logs / f"{name}.log"


def _check_layout(path: Path) -> None:
    marker = path / _MARKER
    if marker.exists():
        text = marker.read_text(encoding="utf-8")
        try:
            found = json.loads(text)["layout"]
        except (ValueError, KeyError, TypeError):
            found = "unknown"
    elif (path / "postgres").exists():
        found = "unknown"
    else:
        return
    if found != LAYOUT:
        raise SupervisorError(
            f"{path} was written by another version of Meterscope: its layout is {found}, this version reads {LAYOUT}; "
            "nothing was changed. Use the version that wrote it, or name another folder with --data-dir"
        )


def _why_not_writable(path: Path, error: OSError) -> str:
    if not isinstance(error, PermissionError):
        return f"{path} cannot be used: {error.strerror}; name another folder with --data-dir"
    # The nearest folder that can be seen is the one whose permission is missing.
    seen = next(folder for folder in (path, *path.parents) if os.access(folder, os.F_OK))
    status = seen.stat()
    return (
        f"{path} cannot be written: {seen} belongs to user {status.st_uid} with mode "
        f"{stat.S_IMODE(status.st_mode):04o}, and this is user {os.geteuid()}; "
        "give that user write permission, or name another folder with --data-dir"
    )
