"""Group commit: calls that arrive while others are being written share the next transaction.

Nobody waits for company: when nothing is being written a call writes at once, in its own thread. What arrives meanwhile
is put together, and the first of it writes for all when the writer before it is done. A further writer begins beside it
only for as much as pays for a transaction: many small ones cost more than they gain.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

# A result comes, an error comes, or the turn to write comes.
_WAITING: Final = "waiting"
_LEADING: Final = "leading"
_DONE: Final = "done"


class _Call(Generic[Item, Result]):
    """One call on its way through."""

    __slots__ = ("error", "items", "results", "state", "woken")

    def __init__(self, items: Sequence[Item]) -> None:
        self.items = items
        self.results: Sequence[Result] = ()
        self.error: BaseException | None = None
        self.state = _WAITING
        # Held until what the call waits for has come. A bare lock: an Event is a condition, a lock and a queue around one.
        self.woken = threading.Lock()
        self.woken.acquire()


class Combiner(Generic[Item, Result]):
    """Puts concurrent calls of `write` together.

    Attributes:
        waiting: items of the calls that wait for a writer now.
    """

    def __init__(
        self, write: Callable[[Sequence[Item]], Sequence[Result]], *, places: int, most: int, worthwhile: int
    ) -> None:
        """Prepare.

        Args:
            write: stores items and returns a result for each; what it raises, all callers get.
            places: writers at a time.
            most: items in one `write`, but for a single call with more.
            worthwhile: waiting items for which a further writer begins.
        """
        self._write = write
        self._free = self._places = places
        self._most = most
        self._worthwhile = worthwhile
        self.waiting = 0
        self._lock = threading.Lock()
        self._queue: deque[_Call[Item, Result]] = deque()

    def __call__(self, items: Sequence[Item]) -> Sequence[Result]:
        """Have items written, and return their results."""
        call: _Call[Item, Result] = _Call(items)
        with self._lock:
            is_first = self._free == self._places
            if is_first or (self._free and self.waiting + len(items) >= self._worthwhile):
                self._free -= 1
                call.state = _LEADING
            else:
                self._queue.append(call)
                self.waiting += len(items)
        if call.state is _WAITING:
            call.woken.acquire()
        if call.state is _LEADING:
            self._lead(call)
        if call.error is not None:
            raise call.error
        return call.results

    def _lead(self, own: _Call[Item, Result]) -> None:
        group = self._gather(own)
        try:
            results = self._write([item for call in group for item in call.items])
        except BaseException as error:  # noqa: BLE001 - every caller raises it in its own thread
            for call in group:
                call.error = error
        else:
            start = 0
            for call in group:
                call.results = results[start : start + len(call.items)]
                start += len(call.items)
        finally:
            self._pass_on()
            for call in group:
                call.state = _DONE
                if call is not own:
                    call.woken.release()

    def _gather(self, own: _Call[Item, Result]) -> list[_Call[Item, Result]]:
        """Take as many of the waiting calls along as fit."""
        group, size = [own], len(own.items)
        with self._lock:
            while self._queue and size + len(self._queue[0].items) <= self._most:
                call = self._queue.popleft()
                group.append(call)
                size += len(call.items)
                self.waiting -= len(call.items)
        return group

    def _pass_on(self) -> None:
        """Give the place to the call that has waited longest, or free it."""
        with self._lock:
            if not self._queue:
                self._free += 1
                return
            successor = self._queue.popleft()
            self.waiting -= len(successor.items)
            successor.state = _LEADING
        successor.woken.release()
