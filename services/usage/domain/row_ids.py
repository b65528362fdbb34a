"""Ids of rows that have none."""

from collections.abc import Sequence
from hashlib import blake2b
from typing import Final

# Rows are told apart from identical ones among so many before them (up to twice as many).
_REMEMBERED: Final = 100_000


class RowIds:
    """Makes ids of rows that have none: from the content, and the row's number among identical ones.

    Calls may repeat exactly, so the content alone would drop some. Files are in order of time, and identical rows have
    the same time: only the last rows are remembered, so that memory stays flat.
    """

    def __init__(self) -> None:
        self._now: dict[bytes, int] = {}
        self._before: dict[bytes, int] = {}

    def of(self, cells: Sequence[str]) -> str:
        """Return the id of the next row."""
        digest = blake2b("\x1f".join(cells).encode(), digest_size=16).digest()
        count = self._now.get(digest) or self._before.get(digest, 0)
        if len(self._now) >= _REMEMBERED:
            self._now, self._before = {}, self._now
        self._now[digest] = count + 1
        return f"row-{digest.hex()}-{count + 1}"
