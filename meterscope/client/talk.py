"""One stream, and the batches that are under way over it."""

import asyncio
import queue
import threading
from collections import deque
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Any, Final, NoReturn

import grpc
from opentelemetry import trace
from opentelemetry.trace import SpanKind, StatusCode

from meterscope.client.errors import Undelivered
from meterscope.client.event import Encoded, Result
from meterscope.client.tries import Pause, Tries, attributes_of, links_of, results_of, streamed
from meterscope.usage.v1 import event_service_pb2 as pb
from meterscope.usage.v1 import event_service_pb2_grpc

_METHOD: Final = "meterscope.usage.v1.EventService/StreamEvents"
# Batches of a stream that are under way: as many as the server reads before an answer is taken, so that neither waits
# for the other.
_WINDOW: Final = 8


class Window:
    """The batches of a stream that are under way, oldest first."""

    def __init__(self, retry_for: timedelta | None) -> None:
        # Of its own: streams that a server has no place for say nothing of other calls.
        self._pause = Pause()
        self._retry_for = retry_for
        self._unanswered: deque[Tries] = deque()

    @property
    def is_empty(self) -> bool:
        """Whether all is answered."""
        return not self._unanswered

    @property
    def has_room(self) -> bool:
        """Whether another batch may be sent before an answer comes."""
        return len(self._unanswered) < _WINDOW

    @property
    def requests(self) -> list[pb.StreamEventsRequest]:
        """What a new stream begins with."""
        return [streamed(tries) for tries in self._unanswered]

    @property
    def oldest(self) -> Tries:
        """The batch whose answer comes next."""
        return self._unanswered[0]

    def add(self, batch: Sequence[Encoded]) -> pb.StreamEventsRequest:
        """Take a batch in, and return its request."""
        span = trace.get_tracer("meterscope.client").start_span(
            _METHOD, kind=SpanKind.CLIENT, attributes=attributes_of(_METHOD, batch), links=links_of(batch)
        )
        self._unanswered.append(Tries(batch, span, self._pause, self._retry_for))
        return streamed(self._unanswered[-1])

    def settle(self, response: pb.StreamEventsResponse | pb.IngestEventsResponse) -> list[Result]:
        """Return what became of the oldest batch.

        Raises:
            Undelivered: that is not what was answered.
        """
        oldest = self.oldest
        try:
            results = results_of(oldest.batch, response, oldest.span)
        except Undelivered as error:
            self.end(error.reason, error, is_refused=True)
        self._unanswered.popleft().span.end()
        return results

    def again(self, error: grpc.RpcError) -> float:
        """Return the seconds to wait before the next stream.

        Raises:
            Undelivered: there is none; with all that was not answered.
        """
        try:
            return self.oldest.again(error)
        except Undelivered as given_up:
            self.end(given_up.reason, error, is_refused=given_up.is_refused, code=given_up.code)

    def end(self, reason: str, error: BaseException | None, *, is_refused: bool = False, code: str = "") -> NoReturn:
        """Give up.

        Raises:
            Undelivered: always; with all that was not answered.
        """
        for tries in self._unanswered:
            tries.span.set_status(StatusCode.ERROR, reason)
        events = [item.event for tries in self._unanswered for item in tries.batch]
        raise Undelivered(events, reason, is_refused=is_refused, code=code) from error

    def close(self) -> None:
        """End the spans that are left."""
        for tries in self._unanswered:
            tries.span.end()


class Talk:
    """One stream. Its requests are sent by a thread of grpcio's."""

    def __init__(self, stub: event_service_pb2_grpc.EventServiceStub, metadata: Any) -> None:
        self._requests: queue.SimpleQueue[pb.StreamEventsRequest | None] = queue.SimpleQueue()
        self._call: Any = stub.StreamEvents(iter(self._requests.get, None), metadata=metadata)

    def send(self, request: pb.StreamEventsRequest) -> None:
        """Send a request when those before are sent."""
        self._requests.put(request)

    def answer(self, seconds: float) -> pb.StreamEventsResponse | None:
        """Wait for the next answer; None if the server ended the stream.

        Raises:
            grpc.RpcError: the stream failed, or no answer came within so many seconds.
        """
        timer = threading.Timer(seconds, self._call.cancel)
        timer.daemon = True
        timer.start()
        try:
            answer: pb.StreamEventsResponse | None = next(self._call, None)
        finally:
            timer.cancel()
        return answer

    def half_close(self) -> None:
        """Send no more."""
        self._requests.put(None)

    def close(self) -> None:
        """Leave the stream, if it has not ended."""
        self.half_close()
        self._call.cancel()


class AsyncTalk:
    """The same in an event loop. Its requests are sent by a task of grpc.aio's."""

    def __init__(self, stub: Any, metadata: Any) -> None:
        self._requests: asyncio.Queue[pb.StreamEventsRequest | None] = asyncio.Queue()
        self._call: Any = stub.StreamEvents(self._sent(), metadata=metadata)
        # Not `read`: it passes over answers that are there already once the end of the stream is known.
        self._answers: AsyncIterator[pb.StreamEventsResponse] = aiter(self._call)

    def send(self, request: pb.StreamEventsRequest) -> None:
        """Send a request when those before are sent."""
        self._requests.put_nowait(request)

    async def answer(self, seconds: float) -> pb.StreamEventsResponse | None:
        """Wait for the next answer; None if the server ended the stream.

        Raises:
            grpc.RpcError: the stream failed, or no answer came within so many seconds. INTERNAL also if it ended while
                a request was sent: grpc.aio puts that in the place of the status, which is then lost.
        """
        try:
            async with asyncio.timeout(seconds):
                return await anext(self._answers, None)
        except TimeoutError:
            nothing = grpc.aio.Metadata()
            late = grpc.StatusCode.DEADLINE_EXCEEDED
            raise grpc.aio.AioRpcError(late, nothing, nothing, f"no answer within {seconds:g} s") from None

    def half_close(self) -> None:
        """Send no more."""
        self._requests.put_nowait(None)

    def close(self) -> None:
        """Leave the stream, if it has not ended."""
        self.half_close()
        self._call.cancel()

    async def _sent(self) -> AsyncIterator[pb.StreamEventsRequest]:
        while (request := await self._requests.get()) is not None:
            yield request
