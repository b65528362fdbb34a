"""The bounded queue between the program that states events and the thread that sends them."""

import threading
import time
from collections import deque
from datetime import timedelta

from meterscope.client.event import Encoded


class Buffer:
    """First in, first out; one taker. What is taken stays counted until it is released, so that the bound holds.

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
        self._changed = threading.Condition()
        self._waiting: deque[tuple[float, Encoded]] = deque()
        self._waiting_bytes = 0
        self._put = 0
        self._released = 0
        self._flushing = 0
        self._closed = False

    def put(self, item: Encoded, *, timeout: float | None) -> bool:
        """Add an event, waiting for room at most `timeout` s. Returns False if there was none, or after `close`."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._put - self._released < self._capacity, timeout)
            if self._closed or self._put - self._released >= self._capacity:
                return False
            self._waiting.append((time.monotonic(), item))
            self._waiting_bytes += item.size
            self._put += 1
            if len(self._waiting) == 1 or self._is_full_batch():
                self._changed.notify_all()
            return True

    def take(self) -> list[Encoded]:
        """Wait for a batch and take it. Empty once the buffer is closed and all is taken."""
        with self._changed:
            while not self._is_due():
                oldest = self._waiting[0][0] if self._waiting else None
                self._changed.wait(None if oldest is None else max(0.0, oldest + self._linger - time.monotonic()))
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

    def release(self, count: int) -> None:
        """Say that `count` taken events are settled, one way or the other."""
        with self._changed:
            self._released += count
            self._changed.notify_all()

    def flush(self, *, timeout: float | None) -> bool:
        """Send without lingering and wait until all that was put before the call is settled. False if it takes longer."""
        with self._changed:
            target = self._put
            self._flushing += 1
            self._changed.notify_all()
            try:
                return self._changed.wait_for(lambda: self._released >= target, timeout)
            finally:
                self._flushing -= 1

    def close(self) -> None:
        """Take no more events; what waits can still be taken, without lingering."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _is_full_batch(self) -> bool:
        return len(self._waiting) >= self._max_events or self._waiting_bytes >= self._max_bytes

    def _is_due(self) -> bool:
        if not self._waiting:
            return self._closed
        lingered = time.monotonic() - self._waiting[0][0] >= self._linger
        return self._closed or self._flushing > 0 or lingered or self._is_full_batch()
