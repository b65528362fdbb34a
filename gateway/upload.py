"""A stream of requests from the event loop into a call of grpcio's threads.

grpcio's own asynchronous call loses the status of a service that answers before the stream's end: the write that meets
the end puts INTERNAL in its place. The threaded one keeps it.
"""

import asyncio
import concurrent.futures
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from google.protobuf.message import Message

Start = Callable[[Iterator[Message]], Any]


class Upload:
    """One call that takes a stream. Made and awaited in the event loop; grpcio fetches the requests in a thread."""

    def __init__(self, requests: AsyncIterator[Message]) -> None:
        self._requests = requests
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._pending: concurrent.futures.Future[Message] | None = None
        self._is_over = False
        self._fault: BaseException | None = None
        self._call: Any = None

    async def run(self, start: Start) -> Any:
        """Start the call and return its answer. A request is fetched once the one before it is sent.

        Args:
            start: starts the call with the requests and returns its future (`stub.future`).

        Raises:
            grpc.RpcError: the call failed; no request is being fetched any more.
            Exception: what the requests raised; the call is cancelled then.
        """
        answered: asyncio.Future[None] = self._loop.create_future()
        self._call = start(self._fetched())
        self._call.add_done_callback(lambda _call: self._loop.call_soon_threadsafe(_settle, answered))
        try:
            await answered
        except asyncio.CancelledError:
            self._call.cancel()
            raise
        finally:
            await self._end()
        if self._fault is not None:
            raise self._fault
        return self._call.result()

    def _fetched(self) -> Iterator[Message]:
        """Yield the requests, in grpcio's thread."""
        while True:
            with self._lock:
                if self._is_over:
                    return
                self._pending = asyncio.run_coroutine_threadsafe(self._next(), self._loop)
            try:
                request = self._pending.result()
            except (StopAsyncIteration, concurrent.futures.CancelledError):
                return
            except BaseException as error:  # noqa: BLE001 - raised where the call is awaited
                self._fault = error
                self._call.cancel()
                return
            yield request

    async def _next(self) -> Message:
        return await anext(self._requests)

    async def _end(self) -> None:
        """See to it that nobody waits for a request any more."""
        with self._lock:
            self._is_over = True
        if self._pending is not None and not self._pending.done():
            self._pending.cancel()
            # The task behind it ends in a turn of the loop.
            await asyncio.sleep(0)


def _settle(answered: "asyncio.Future[None]") -> None:
    if not answered.done():
        answered.set_result(None)
