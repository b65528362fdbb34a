"""Slots for calls that occupy a thread for long: those that find none are sent away at once."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from services.kit.errors import ResourceExhausted

_RETRY_AFTER: Final = 1.0


class Slots:
    """The slots of one kind of call in a process."""

    def __init__(self, most: int, message: str, *, reason: str) -> None:
        """Prepare.

        Args:
            most: how many there are.
            message: what those are told who find none, behind the number: what takes them, and what to do.
            reason: the same for programs.
        """
        self._free = threading.BoundedSemaphore(most)
        self._refusal = f"{most} {message}"
        self._reason = reason

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold one.

        Raises:
            ResourceExhausted: all are taken.
        """
        if not self._free.acquire(blocking=False):
            raise ResourceExhausted(self._refusal, reason=self._reason, retry_after=_RETRY_AFTER)
        try:
            yield
        finally:
            self._free.release()
