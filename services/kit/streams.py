"""Streams of requests, as calls take them: read in a thread of their own, and ended when nothing moves any more.

grpcio lets a handler wait for the next request as long as the caller likes, and as long for the caller to take an answer.
Meanwhile it occupies a thread, and what it holds. Here both have a bound, and a server that stops ends what goes on
for ever.
"""

import contextvars
import itertools
import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Final, Generic, TypeVar

import grpc

from services.kit.errors import ServiceError, Unavailable

T = TypeVar("T")
Answer = TypeVar("Answer")

# Another process of the service listens already, or soon will.
_RETRY_AFTER_STOP: Final = 0.1


class Cancelled(ServiceError):
    """Nobody waits for the answer any more."""

    status = "CANCELLED"
    reason = "CANCELLED"


class StreamIdle(ServiceError):
    """The caller sends nothing; its stream made room for others. No fault of the service, as alerts count faults."""

    status = "ABORTED"
    reason = "STREAM_IDLE"

    def __init__(self, seconds: float) -> None:
        super().__init__(
            f"nothing came for {seconds:g} s (METERSCOPE_STREAM_IDLE_SECONDS), so that the call was ended to make room;"
            " call again when there is something to send"
        )


class ServerStopping(Unavailable):
    """The server stops; what was answered is durable."""

    reason = "SERVER_STOPPING"

    def __init__(self) -> None:
        super().__init__(
            "this server stops; what was not answered is to be sent again, over a new stream",
            retry_after=_RETRY_AFTER_STOP,
        )


class Stream(Iterator[T]):
    """The requests of one call, and its answers on their way.

    Each request is fetched when the one before it was taken, so that a caller is not faster than the handler for long.
    """

    def __init__(self, requests: Iterator[T], context: grpc.ServicerContext, *, idle: float) -> None:
        """Begin to read.

        Args:
            requests: what is read, in a thread; what it raises, `next` raises.
            context: of the call.
            idle: seconds for which `next` waits at most.
        """
        self._requests = requests
        self._context = context
        self._idle = idle
        self._changed = threading.Condition()
        self._fetched: list[T] = []
        self._end: BaseException | None = None
        self._sending_since: float | None = None
        threading.Thread(target=self._fetch, name="stream", daemon=True).start()

    def __next__(self) -> T:
        """Wait for the next request.

        Raises:
            StreamIdle: none comes.
            Exception: what ended the stream.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._fetched or self._end is not None, self._idle):
                raise StreamIdle(self._idle)
            if self._fetched:
                request = self._fetched.pop()
                self._changed.notify_all()
                return request
            assert self._end is not None  # noqa: S101 - waited for
            raise self._end

    def end(self, error: Exception) -> None:
        """Let `next` raise an error from now on, unless all was taken and the stream has ended."""
        with self._changed:
            if self._fetched or self._end is None:
                self._fetched.clear()
                self._end = error
            self._changed.notify_all()

    def sent(self, answers: Iterator[Answer]) -> Iterator[Answer]:
        """Yield the answers, and know since when one waits for the caller."""
        for answer in answers:
            self._sending_since = time.monotonic()
            yield answer
            self._sending_since = None

    def cancel_if_stalled(self) -> None:
        """Cancel the call if its caller has not taken an answer for too long."""
        since = self._sending_since
        if since is not None and time.monotonic() - since > self._idle:
            # Said before: grpcio may let the handler go on for a moment.
            self.end(Cancelled(f"the caller took no answer for {self._idle:g} s"))
            self._context.cancel()

    def _fetch(self) -> None:
        while self._wants_more():
            try:
                request = next(self._requests)
            except BaseException as error:  # noqa: BLE001 - raised where the requests are taken
                self._came([], error)
            else:
                self._came([request], None)

    def _wants_more(self) -> bool:
        """Wait until the request before is taken; say whether another one will be."""
        with self._changed:
            self._changed.wait_for(lambda: not self._fetched or self._end is not None)
            return self._end is None

    def _came(self, requests: list[T], end: BaseException | None) -> None:
        with self._changed:
            if self._end is None:
                self._fetched, self._end = requests, end
                self._changed.notify_all()


class Streams:
    """The streams that a server has open."""

    def __init__(self, *, idle: timedelta) -> None:
        """Prepare. `idle` is how long a stream may stand still."""
        self._idle = idle.total_seconds()
        self._lock = threading.Lock()
        self._open: set[Stream[Any]] = set()
        self._endless: set[Stream[Any]] = set()
        self._is_stopping = False

    @contextmanager
    def opened(
        self, requests: Iterator[T], context: grpc.ServicerContext, *, is_endless: bool = False
    ) -> Iterator[Stream[T]]:
        """Read a call's requests.

        Args:
            requests: of the call.
            context: of the call.
            is_endless: whether it may go on for ever; a server that stops ends it then, with UNAVAILABLE.
        """
        stream = Stream(requests, context, idle=self._idle)
        with self._lock:
            self._open.add(stream)
            if is_endless:
                self._endless.add(stream)
            is_late = is_endless and self._is_stopping
        if is_late:
            stream.end(ServerStopping())
        try:
            yield stream
        finally:
            with self._lock:
                self._open.discard(stream)
                self._endless.discard(stream)
            stream.end(Cancelled("the call is over"))

    def stop(self) -> None:
        """End the endless ones, those too that are opened later. What they are at work on is still answered."""
        with self._lock:
            self._is_stopping = True
            endless = list(self._endless)
        for stream in endless:
            stream.end(ServerStopping())

    def cancel_stalled(self) -> None:
        """Cancel the calls whose callers take no answers. To be called now and then."""
        with self._lock:
            streams = list(self._open)
        for stream in streams:
            stream.cancel_if_stalled()


def answered(
    requests: Iterator[T], answer: Callable[[int, T], Answer], *, at_once: int, ahead: int
) -> Iterator[Answer]:
    """Yield the answers to requests, in their order.

    What ends the requests, or an answer, with an error ends the answers with it, behind those before; no more is read then.

    Args:
        requests: taken by one thread at a time.
        answer: is given a request with its place, from 0; called in other threads, in the caller's contextvars.
        at_once: threads that answer, each reading the next request when it is done with one.
        ahead: requests that are read at most before their answers are taken.
    """
    work = _Work(requests, answer, ahead)
    for _ in range(at_once):
        context = contextvars.copy_context()
        threading.Thread(target=context.run, args=(work.run,), name="stream-answers", daemon=True).start()
    try:
        while True:
            future = work.futures.get()
            try:
                found = future.result()
            except StopIteration:
                return
            work.room.release()
            yield found
    finally:
        work.end()


class _Work(Generic[T, Answer]):
    """What the threads of one stream share."""

    def __init__(self, requests: Iterator[T], answer: Callable[[int, T], Answer], ahead: int) -> None:
        self._requests = requests
        self._answer = answer
        self._places = itertools.count()
        self._reading = threading.Lock()
        self._is_over = False
        self.room = threading.Semaphore(ahead)
        self.futures: queue.SimpleQueue[Future[Answer]] = queue.SimpleQueue()

    def run(self) -> None:
        while True:
            future: Future[Answer] = Future()
            with self._reading:
                self.room.acquire()
                if self._is_over:
                    self.room.release()
                    return
                # Handed on in the order in which they are read.
                self.futures.put(future)
                try:
                    request = next(self._requests)
                except BaseException as error:  # noqa: BLE001 - raised where the answers are taken
                    self.end()
                    future.set_exception(error)
                    return
                place = next(self._places)
            try:
                future.set_result(self._answer(place, request))
            except BaseException as error:  # noqa: BLE001 - likewise
                self.end()
                future.set_exception(error)
                return

    def end(self) -> None:
        """Have no more requests read."""
        self._is_over = True
        self.room.release()
