"""The file that a child's output goes to."""

import json
from pathlib import Path
from typing import BinaryIO, Final

_LARGEST_BYTES: Final = 16 << 20
_TAIL_BYTES: Final = 16 << 10
_SHOWN_LINES: Final = 12


class Log:
    """One child's log. A file that has grown large is set aside (`NAME.log.1`) when the log is opened."""

    def __init__(self, file: Path) -> None:
        self.file = file
        if file.exists() and file.stat().st_size > _LARGEST_BYTES:
            file.replace(file.with_name(f"{file.name}.1"))
        self._start = file.stat().st_size if file.exists() else 0

    def open(self) -> BinaryIO:
        """Open for a child to append to."""
        return self.file.open("ab")

    def end(self) -> str:
        """Return the last lines since the log was opened, those in JSON as people read them."""
        with self.file.open("rb") as log:
            log.seek(max(self._start, self.file.stat().st_size - _TAIL_BYTES))
            text = log.read().decode(errors="replace")
        return "\n".join([_readable(line) for line in text.splitlines() if line.strip()][-_SHOWN_LINES:])


def _readable(line: str) -> str:
    try:
        fields = json.loads(line)
    except ValueError:
        return line
    if not isinstance(fields, dict) or "message" not in fields:
        return line
    cause = f": {fields['exception.type']}: {fields.get('exception.message')}" if "exception.type" in fields else ""
    return f"{fields.get('level', '')} {fields['message']}{cause}".strip()
