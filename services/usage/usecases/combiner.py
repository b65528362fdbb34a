"""Group commit: calls that arrive while others are being written share the next transaction.

Nobody waits for the clock: when nothing is being written a call writes at once, in its own thread. What arrives meanwhile
is put together, and written for all by a thread that goes on as long as calls wait. It is not one of the callers' own:
each group ends with all of its callers at work on their answers, and one of them that had to write the next would have
to take its turn among them, while the database has nothing to do. A further writer begins beside the first only for as
much as pays for a transaction: many small ones cost more than they gain.

A writer lets the threads run first that could, as long as that brings it more to write: they are the ones that would
have to wait for its transaction. On an idle server none can, and it goes on at once.
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import copy_context
from types import TracebackType
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class _Call(Generic[Item, Result]):
    """One call on its way through."""

    __slots__ = ("context", "done", "error", "items", "origin", "results")

    def __init__(self, items: Sequence[Item]) -> None:
        self.items = items
        self.results: Sequence[Result] = ()
        self.error: BaseException | None = None
        self.origin: TracebackType | None = None
        # What is logged while a group is written, is logged under the first of its calls.
        self.context = copy_context()
        # Held until the results or the error are there. A bare lock: an Event is a condition, a lock and a queue around one.
        self.done = threading.Lock()
        self.done.acquire()


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
        # Of the threads that have nothing to write, what each waits for.
        self._resting: list[threading.Lock] = []

    def __call__(self, items: Sequence[Item]) -> Sequence[Result]:
        """Have items written, and return their results."""
        call: _Call[Item, Result] = _Call(items)
        with self._lock:
            is_first = self._free == self._places
            leads = is_first or (self._free and self.waiting + len(items) >= self._worthwhile)
            if leads:
                self._free -= 1
            else:
                self._queue.append(call)
                self.waiting += len(items)
        if leads:
            self._carry_out(self._gather(call))
            self._pass_on()
        call.done.acquire()
        if call.error is not None:
            # Each caller's raise would lengthen the traceback that all of them share.
            raise call.error.with_traceback(call.origin)
        return call.results

    def _gather(self, *own: _Call[Item, Result]) -> list[_Call[Item, Result]]:
        """Take as many of the waiting calls along as fit; none where no call waits."""
        seen = -1
        while seen < self.waiting < self._worthwhile:
            seen = self.waiting
            os.sched_yield()
        group = list(own)
        size = sum(len(call.items) for call in own)
        with self._lock:
            while self._queue and (not group or size + len(self._queue[0].items) <= self._most):
                call = self._queue.popleft()
                group.append(call)
                size += len(call.items)
                self.waiting -= len(call.items)
        return group

    def _carry_out(self, group: Sequence[_Call[Item, Result]]) -> None:
        """Write for a group of calls, and let them go."""
        try:
            results = group[0].context.run(self._write, [item for call in group for item in call.items])
            start = 0
            for call in group:
                call.results = results[start : start + len(call.items)]
                start += len(call.items)
        except BaseException as error:  # noqa: BLE001 - every caller raises it in its own thread
            for call in group:
                call.error, call.origin = error, error.__traceback__
        for call in group:
            call.done.release()

    def _pass_on(self) -> None:
        """Give the place to a thread that writes for those who wait, or free it."""
        with self._lock:
            if not self._queue:
                self._free += 1
                return
            rest = self._resting.pop() if self._resting else None
        if rest is not None:
            rest.release()
            return
        try:
            threading.Thread(target=self._go_on, name="combiner", daemon=True).start()
        except RuntimeError:
            # The system gives no more threads.
            self._write_out(None)

    def _go_on(self) -> None:
        """Write for whoever waits, and rest while nobody does."""
        rest = threading.Lock()
        rest.acquire()
        while True:
            self._write_out(rest)
            rest.acquire()

    def _write_out(self, rest: "threading.Lock | None") -> None:
        """Write until nobody waits, and free the place; `rest` is what the thread waits for then."""
        while True:
            while group := self._gather():
                self._carry_out(group)
            with self._lock:
                if self._queue:
                    # It came between the two.
                    continue
                self._free += 1
                if rest is not None:
                    self._resting.append(rest)
                return
