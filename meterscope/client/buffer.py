"""The bounded queue between the program that states events and the thread, or the task, that sends them."""

import asyncio
import threading
from collections.abc import Sequence

from meterscope.client.batches import Batches
from meterscope.client.event import Encoded


class Buffer:
    """A queue between threads, with one taker."""

    def __init__(self, batches: Batches) -> None:
        self._batches = batches
        self._changed = threading.Condition()

    @property
    def bytes(self) -> int:
        """How many bytes a spool would need for all that waits or is under way."""
        return self._batches.bytes

    def put(self, item: Encoded, *, timeout: float | None) -> bool:
        """Add an event, waiting for room at most `timeout` s. Returns False if there was none, or after `close`."""
        with self._changed:
            self._changed.wait_for(lambda: self._batches.is_closed or self._batches.has_room, timeout)
            if not self._batches.has_room:
                return False
            if self._batches.add(item):
                self._changed.notify_all()
            return True

    def take(self) -> list[Encoded]:
        """Wait for a batch and take it. Empty once the buffer is closed and all is taken."""
        with self._changed:
            while not self._batches.is_due:
                self._changed.wait(self._batches.linger_left)
            return self._batches.take()

    def release(self, batch: Sequence[Encoded]) -> None:
        """Say that a taken batch is settled, one way or the other."""
        with self._changed:
            self._batches.release(batch)
            self._changed.notify_all()

    def flush(self, *, timeout: float | None) -> bool:
        """Send without lingering and wait until all that was put before the call is settled. False if it takes longer."""
        with self._changed:
            target = self._batches.put
            self._batches.flushing += 1
            self._changed.notify_all()
            try:
                return self._changed.wait_for(lambda: self._batches.released >= target, timeout)
            finally:
                self._batches.flushing -= 1

    def close(self) -> None:
        """Take no more events; what waits can still be taken, without lingering."""
        with self._changed:
            self._batches.is_closed = True
            self._changed.notify_all()


class AsyncBuffer:
    """The same between the tasks of one event loop."""

    def __init__(self, batches: Batches) -> None:
        self._batches = batches
        self._changed = asyncio.Condition()

    @property
    def bytes(self) -> int:
        """How many bytes a spool would need for all that waits or is under way."""
        return self._batches.bytes

    async def put(self, item: Encoded, *, timeout: float | None) -> bool:  # noqa: ASYNC109 - as Buffer has it
        """Add an event, waiting for room at most `timeout` s. Returns False if there was none, or after `close`."""
        async with self._changed:
            try:
                async with asyncio.timeout(timeout):
                    await self._changed.wait_for(lambda: self._batches.is_closed or self._batches.has_room)
            except TimeoutError:
                return False
            if not self._batches.has_room:
                return False
            if self._batches.add(item):
                self._changed.notify_all()
            return True

    async def take(self) -> list[Encoded]:
        """Wait for a batch and take it. Empty once the buffer is closed and all is taken."""
        async with self._changed:
            while not self._batches.is_due:
                try:
                    async with asyncio.timeout(self._batches.linger_left):
                        await self._changed.wait()
                except TimeoutError:
                    continue
            return self._batches.take()

    async def release(self, batch: Sequence[Encoded]) -> None:
        """Say that a taken batch is settled, one way or the other."""
        async with self._changed:
            self._batches.release(batch)
            self._changed.notify_all()

    async def flush(self, *, timeout: float | None) -> bool:  # noqa: ASYNC109 - as Buffer has it
        """Send without lingering and wait until all that was put before the call is settled. False if it takes longer."""
        async with self._changed:
            target = self._batches.put
            self._batches.flushing += 1
            self._changed.notify_all()
            try:
                async with asyncio.timeout(timeout):
                    await self._changed.wait_for(lambda: self._batches.released >= target)
            except TimeoutError:
                return False
            finally:
                self._batches.flushing -= 1
            return True

    async def close(self) -> None:
        """Take no more events; what waits can still be taken, without lingering."""
        async with self._changed:
            self._batches.is_closed = True
            self._changed.notify_all()
