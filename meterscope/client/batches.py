"""What waits to be sent, and when it is a batch. Knows nothing of threads or event loops: its owner locks and waits."""

import time
from collections import deque
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from meterscope.client.event import Encoded

# The most that a spool adds to an event that goes there alone: a record's header, and the event's length and tag.
_RECORD_BYTES: Final = 18


class Batches:
    """First in, first out. What is taken stays counted until it is released, so that the bound holds.

    Args:
        capacity: the most events that wait or are under way.
        max_events: the most events of one batch.
        max_bytes: the most bytes of one batch; a larger single event goes alone.
        linger: how long the oldest event waits for company.
    """

    def __init__(self, *, capacity: int, max_events: int, max_bytes: int, linger: timedelta) -> None:
        self._capacity = capacity
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._linger = linger.total_seconds()
        self._waiting: deque[tuple[float, Encoded]] = deque()
        self._waiting_bytes = 0
        self.bytes = 0
        self.put = 0
        self.released = 0
        self.flushing = 0
        self.is_closed = False

    @property
    def has_room(self) -> bool:
        """Whether another event may be added."""
        return not self.is_closed and self.put - self.released < self._capacity

    def add(self, item: Encoded) -> bool:
        """Add an event; say whether the taker may now have more to do than before."""
        self._waiting.append((time.monotonic(), item))
        self._waiting_bytes += item.size
        self.bytes += item.size + _RECORD_BYTES
        self.put += 1
        return len(self._waiting) == 1 or self._is_full_batch

    @property
    def is_due(self) -> bool:
        """Whether `take` should be called: there is a batch, or nothing will ever come again."""
        if not self._waiting:
            return self.is_closed
        return self.is_closed or self.flushing > 0 or self.linger_left == 0 or self._is_full_batch

    @property
    def linger_left(self) -> float | None:
        """How many seconds the oldest event still waits for company; None without one."""
        return max(0.0, self._waiting[0][0] + self._linger - time.monotonic()) if self._waiting else None

    def take(self) -> list[Encoded]:
        """Take the oldest events that make a batch; none if none wait."""
        batch: list[Encoded] = []
        size = 0
        while self._waiting and len(batch) < self._max_events:
            item = self._waiting[0][1]
            if batch and size + item.size > self._max_bytes:
                break
            self._waiting.popleft()
            batch.append(item)
            size += item.size
        self._waiting_bytes -= size
        return batch

    def release(self, batch: Sequence[Encoded]) -> None:
        """Say that a taken batch is settled, one way or the other."""
        self.released += len(batch)
        self.bytes -= sum(item.size + _RECORD_BYTES for item in batch)

    @property
    def _is_full_batch(self) -> bool:
        return len(self._waiting) >= self._max_events or self._waiting_bytes >= self._max_bytes
