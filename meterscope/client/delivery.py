"""Delivers batches: sends each, with the same ids, until it is answered or the time for it is over."""

import asyncio
import queue
import random
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import timedelta
from typing import Any, Final, NoReturn

import grpc
import uuid_utils
from opentelemetry import propagate, trace
from opentelemetry.trace import Link, Span, SpanKind, StatusCode

from meterscope.client.errors import Undelivered
from meterscope.client.event import Encoded, Outcome, Result
from meterscope.client.status import asked_delay
from meterscope.usage.v1 import event_service_pb2 as pb
from meterscope.usage.v1 import event_service_pb2_grpc

METHOD: Final = "meterscope.usage.v1.EventService/IngestEvents"
STREAM_METHOD: Final = "meterscope.usage.v1.EventService/StreamEvents"

# The outcome is not known, or the server asks for patience: the events' identities make another try safe.
_RETRYABLE: Final = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.ABORTED,
    }
)
_FIRST_DELAY: Final = 0.1
_LONGEST_DELAY: Final = 5.0
_MOST_LINKS: Final = 32
# Batches of a stream that are under way: as many as the server reads before an answer is taken, so that neither waits
# for the other.
_WINDOW: Final = 8
_BROKEN: Final = "the server ended the stream before it had answered all"


class _Pause:
    """Until when the server asked to be left alone: it holds for all batches."""

    def __init__(self) -> None:
        self._until = 0.0

    def ask(self, seconds: float) -> None:
        self._until = max(self._until, time.monotonic() + seconds)

    @property
    def left(self) -> float:
        return max(0.0, self._until - time.monotonic())


class _Tries:
    """The tries of one batch: what is sent, and whether and when it is sent again."""

    def __init__(self, batch: Sequence[Encoded], span: Span, pause: _Pause, retry_for: timedelta | None) -> None:
        self.batch = batch
        self.request_id = str(uuid_utils.uuid7())
        self.trace: dict[str, str] = {}
        propagate.inject(self.trace, trace.set_span_in_context(span))
        self.span = span
        self._pause = pause
        self._give_up = None if retry_for is None else time.monotonic() + retry_for.total_seconds()
        self._delay = _FIRST_DELAY

    def begin(self) -> float:
        """Return the seconds to wait before the first try.

        Raises:
            Undelivered: the server asked to be left alone for longer than there is time.
        """
        return self._checked(self._pause.left, "UNAVAILABLE: the server asked to be left alone", None)

    def again(self, error: grpc.RpcError) -> float:
        """Return the seconds to wait before the next try.

        Raises:
            Undelivered: there is no next one.
        """
        call: Any = error
        code, asked = call.code(), asked_delay(error)
        reason = f"{code.name}: {call.details()}"
        if code not in _RETRYABLE and not (code is grpc.StatusCode.RESOURCE_EXHAUSTED and asked > 0):
            self.end(reason, error, is_refused=True, code=code.name)
        self._pause.ask(asked)
        wait = self._checked(max(random.uniform(self._delay / 2, self._delay), asked), reason, error)
        self.span.add_event("retry", {"rpc.response.status_code": code.name, "meterscope.wait_seconds": wait})
        self._delay = min(self._delay * 2, _LONGEST_DELAY)
        return wait

    def end(self, reason: str, error: BaseException | None, *, is_refused: bool = False, code: str = "") -> NoReturn:
        """Give up.

        Raises:
            Undelivered: always.
        """
        self.span.set_status(StatusCode.ERROR, reason)
        raise Undelivered([item.event for item in self.batch], reason, is_refused=is_refused, code=code) from error

    def _checked(self, wait: float, reason: str, error: BaseException | None) -> float:
        if self._give_up is not None and wait > 0 and time.monotonic() + wait > self._give_up:
            self.end(reason, error)
        return wait


class _Window:
    """The batches of a stream that are under way, oldest first."""

    def __init__(self, retry_for: timedelta | None) -> None:
        # Of its own: streams that a server has no place for say nothing of other calls.
        self._pause = _Pause()
        self._retry_for = retry_for
        self._unanswered: deque[_Tries] = deque()

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
        return [_streamed(tries) for tries in self._unanswered]

    def add(self, batch: Sequence[Encoded]) -> pb.StreamEventsRequest:
        """Take a batch in, and return its request."""
        span = trace.get_tracer("meterscope.client").start_span(
            STREAM_METHOD, kind=SpanKind.CLIENT, attributes=_attributes(STREAM_METHOD, batch), links=_links(batch)
        )
        self._unanswered.append(_Tries(batch, span, self._pause, self._retry_for))
        return _streamed(self._unanswered[-1])

    def settle(self, response: pb.StreamEventsResponse) -> list[Result]:
        """Return what became of the oldest batch.

        Raises:
            Undelivered: that is not what was answered.
        """
        oldest = self._unanswered[0]
        try:
            results = _results(oldest.batch, response, oldest.span)
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
            return self._unanswered[0].again(error)
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


class _Talk:
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


class Delivery:
    """Sends batches, from any thread.

    Args:
        channel: a channel to usage.
        token: sent as `authorization: Bearer`, if given.
        timeout: the deadline of each try.
    """

    def __init__(self, channel: grpc.Channel, *, token: str | None, timeout: timedelta) -> None:
        self._stub = event_service_pb2_grpc.EventServiceStub(channel)
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()
        self._timeout = timeout.total_seconds()
        self._pause = _Pause()

    def send(self, batch: Sequence[Encoded], *, retry_for: timedelta | None, stopped: threading.Event) -> list[Result]:
        """Send a batch and return what became of each event, in order.

        Args:
            batch: the events.
            retry_for: how long it is tried; for ever when None.
            stopped: ends the waiting between tries.

        Raises:
            Undelivered: the server refused the batch as a whole, did not answer in time, or `stopped` was set.
        """
        with _span(batch) as span:
            tries = _Tries(batch, span, self._pause, retry_for)
            request, metadata = _unary(tries, self._metadata)
            wait = tries.begin()
            if wait and stopped.wait(wait):
                tries.end("the client was closed", None)
            while True:
                try:
                    response = self._stub.IngestEvents(request, timeout=self._timeout, metadata=metadata)
                except grpc.RpcError as error:
                    if stopped.wait(tries.again(error)):
                        tries.end(_told(error), error)
                else:
                    return _results(batch, response, span)

    def stream(
        self, batches: Iterator[Sequence[Encoded]], *, retry_for: timedelta | None, stopped: threading.Event
    ) -> Iterator[list[Result]]:
        """Send batches over a stream, several at a time, and yield what became of the events of each, in order.

        What was not answered when a stream breaks is sent again over the next.

        Args:
            batches: taken as answers come.
            retry_for: how long each is tried.
            stopped: ends the waiting between tries.

        Raises:
            Undelivered: as `send`; with the events of all batches that were taken and not answered.
        """
        with closing(_Window(retry_for)) as window:
            while True:
                talk = _Talk(self._stub, self._metadata)
                try:
                    for request in window.requests:
                        talk.send(request)
                    while True:
                        while window.has_room and (batch := next(batches, None)):
                            talk.send(window.add(batch))
                        if window.is_empty:
                            self._leave(talk)
                            return
                        answer = talk.answer(self._timeout)
                        if answer is None:
                            window.end(_BROKEN, None)
                        yield window.settle(answer)
                except grpc.RpcError as error:
                    if stopped.wait(window.again(error)):
                        window.end(_told(error), error)
                finally:
                    talk.close()

    def _leave(self, talk: _Talk) -> None:
        """See a stream to its end, on which all is answered."""
        talk.half_close()
        with suppress(grpc.RpcError):
            talk.answer(self._timeout)


class AsyncDelivery:
    """The same in an event loop, over a channel of grpc.aio."""

    def __init__(self, channel: grpc.aio.Channel, *, token: str | None, timeout: timedelta) -> None:
        self._stub: Any = event_service_pb2_grpc.EventServiceStub(channel)
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()
        self._timeout = timeout.total_seconds()
        self._pause = _Pause()

    async def send(
        self, batch: Sequence[Encoded], *, retry_for: timedelta | None, stopped: asyncio.Event
    ) -> list[Result]:
        """Send a batch and return what became of each event, in order. As `Delivery.send`."""
        with _span(batch) as span:
            tries = _Tries(batch, span, self._pause, retry_for)
            request, metadata = _unary(tries, self._metadata)
            wait = tries.begin()
            if wait and await is_set_within(stopped, wait):
                tries.end("the client was closed", None)
            while True:
                try:
                    response = await self._stub.IngestEvents(request, timeout=self._timeout, metadata=metadata)
                except grpc.RpcError as error:
                    if await is_set_within(stopped, tries.again(error)):
                        tries.end(_told(error), error)
                except asyncio.CancelledError as error:
                    # A channel that is closed cancels whoever waits for its calls.
                    if not stopped.is_set():
                        raise
                    tries.end("the client was closed", error)
                else:
                    return _results(batch, response, span)


async def is_set_within(event: asyncio.Event, seconds: float) -> bool:
    """Wait for an event, at most so long; return whether it is set."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True


@contextmanager
def _span(batch: Sequence[Encoded]) -> Iterator[Span]:
    tracer = trace.get_tracer("meterscope.client")
    with tracer.start_as_current_span(
        METHOD,
        kind=SpanKind.CLIENT,
        attributes=_attributes(METHOD, batch),
        links=_links(batch),
        record_exception=False,
    ) as span:
        yield span


def _attributes(method: str, batch: Sequence[Encoded]) -> dict[str, str | int]:
    return {"rpc.system.name": "grpc", "rpc.method": method, "meterscope.batch.events": len(batch)}


def _unary(tries: _Tries, metadata: tuple[tuple[str, str], ...]) -> tuple[pb.IngestEventsRequest, Any]:
    """Return a batch as a call of its own: the request and the metadata."""
    request = pb.IngestEventsRequest(events=[item.message for item in tries.batch], request_id=tries.request_id)
    return request, (*metadata, *tries.trace.items())


def _streamed(tries: _Tries) -> pb.StreamEventsRequest:
    """Return a batch as a request of a stream."""
    return pb.StreamEventsRequest(
        events=[item.message for item in tries.batch],
        request_id=tries.request_id,
        traceparent=tries.trace.get("traceparent", ""),
    )


def _links(batch: Sequence[Encoded]) -> list[Link]:
    contexts = {item.link.span_id: item.link for item in batch if item.link}
    return [Link(context) for context in list(contexts.values())[:_MOST_LINKS]]


def _told(error: grpc.RpcError) -> str:
    call: Any = error
    return f"{call.code().name}: {call.details()}"


def _results(
    batch: Sequence[Encoded], response: pb.IngestEventsResponse | pb.StreamEventsResponse, span: Span
) -> list[Result]:
    for name in ("accepted", "duplicate", "conflict", "quarantined", "rejected"):
        if count := getattr(response, name):
            span.set_attribute(f"meterscope.batch.{name}", count)
    if len(response.results) != len(batch):
        reason = f"the server answered {len(response.results)} results to {len(batch)} events"
        raise Undelivered([item.event for item in batch], reason, is_refused=True)
    return [
        Result(item.event, Outcome(result.outcome), result.reason, result.field, result.message)
        for item, result in zip(batch, response.results, strict=True)
    ]
