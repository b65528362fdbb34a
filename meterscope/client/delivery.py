"""Delivers batches: sends each, with the same ids, until it is answered or the time for it is over."""

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import timedelta
from typing import Any, Final

import grpc
from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind

from meterscope.client.event import Encoded, Result
from meterscope.client.talk import AsyncTalk, Talk, Window
from meterscope.client.tries import Pause, Tries, attributes_of, links_of, results_of, told, unary
from meterscope.usage.v1 import event_service_pb2 as pb
from meterscope.usage.v1 import event_service_pb2_grpc

_METHOD: Final = "meterscope.usage.v1.EventService/IngestEvents"

_BROKEN: Final = "the server ended the stream before it had answered all"
_CLOSED: Final = "the client was closed"


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
        self._pause = Pause()

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
            tries = Tries(batch, span, self._pause, retry_for)
            request, metadata = unary(tries, self._metadata)
            wait = tries.begin()
            if wait and stopped.wait(wait):
                tries.end(_CLOSED, None)
            while True:
                try:
                    response = self._stub.IngestEvents(request, timeout=self._timeout, metadata=metadata)
                except grpc.RpcError as error:
                    if stopped.wait(tries.again(error)):
                        tries.end(told(error), error)
                else:
                    return results_of(batch, response, span)

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
        with closing(Window(retry_for)) as window:
            while True:
                talk = Talk(self._stub, self._metadata)
                try:
                    for request in window.requests:
                        talk.send(request)
                    while True:
                        while window.has_room and (batch := next(batches, None)):
                            talk.send(window.add(batch))
                        if window.is_empty:
                            self._leave(talk)
                            return
                        # Of this alone: what `batches` raises is the program's, whatever it is.
                        try:
                            answer = talk.answer(self._timeout)
                        except grpc.RpcError as error:
                            ended = error
                            break
                        if answer is None:
                            window.end(_BROKEN, None)
                        yield window.settle(answer)
                finally:
                    talk.close()
                if stopped.wait(window.again(ended)):
                    window.end(told(ended), ended)

    def _leave(self, talk: Talk) -> None:
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
        self._pause = Pause()

    async def send(
        self, batch: Sequence[Encoded], *, retry_for: timedelta | None, stopped: asyncio.Event
    ) -> list[Result]:
        """Send a batch and return what became of each event, in order. As `Delivery.send`."""
        with _span(batch) as span:
            tries = Tries(batch, span, self._pause, retry_for)
            request, metadata = unary(tries, self._metadata)
            wait = tries.begin()
            if wait and await is_set_within(stopped, wait):
                tries.end(_CLOSED, None)
            while True:
                try:
                    response = await self._stub.IngestEvents(request, timeout=self._timeout, metadata=metadata)
                except grpc.RpcError as error:
                    if await is_set_within(stopped, tries.again(error)):
                        tries.end(told(error), error)
                except asyncio.CancelledError as error:
                    # A channel that is closed cancels whoever waits for its calls.
                    if not stopped.is_set():
                        raise
                    tries.end(_CLOSED, error)
                else:
                    return results_of(batch, response, span)

    async def stream(
        self, batches: AsyncIterator[Sequence[Encoded]], *, retry_for: timedelta | None, stopped: asyncio.Event
    ) -> AsyncGenerator[list[Result]]:
        """Send batches over a stream, several at a time, and yield what became of the events of each, in order.

        As `Delivery.stream`.
        """
        with closing(Window(retry_for)) as window, _handed_back(window, stopped):
            while True:
                talk = AsyncTalk(self._stub, self._metadata)
                try:
                    for request in window.requests:
                        talk.send(request)
                    while True:
                        while window.has_room and (batch := await anext(batches, None)):
                            talk.send(window.add(batch))
                        if window.is_empty:
                            await self._leave(talk)
                            return
                        # Of this alone: what `batches` raises is the program's, whatever it is.
                        try:
                            answer = await talk.answer(self._timeout)
                        except grpc.RpcError as error:
                            ended = error
                            break
                        if answer is None:
                            window.end(_BROKEN, None)
                        yield window.settle(answer)
                finally:
                    talk.close()
                try:
                    yield window.settle(await self._answer_alone(window.oldest, ended))
                except grpc.RpcError as error:
                    if await is_set_within(stopped, window.again(error)):
                        window.end(told(error), error)

    async def _answer_alone(self, oldest: Tries, ended: grpc.RpcError) -> pb.IngestEventsResponse:
        """Send a batch by a call of its own if its stream ended without saying why: such a call does say.

        Raises:
            grpc.RpcError: why the stream ended, or why the call failed.
        """
        call: Any = ended
        if call.code() is not grpc.StatusCode.INTERNAL:
            raise ended
        request, metadata = unary(oldest, self._metadata)
        response: pb.IngestEventsResponse = await self._stub.IngestEvents(
            request, timeout=self._timeout, metadata=metadata
        )
        return response

    async def _leave(self, talk: AsyncTalk) -> None:
        """See a stream to its end, on which all is answered."""
        talk.half_close()
        with suppress(grpc.RpcError):
            await talk.answer(self._timeout)


async def is_set_within(event: asyncio.Event, seconds: float) -> bool:
    """Wait for an event, at most so long; return whether it is set."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True


@contextmanager
def _handed_back(window: Window, stopped: asyncio.Event) -> Iterator[None]:
    """Hand back what was not answered if the client is closed: a closed channel cancels whoever waits for its calls."""
    try:
        yield
    except asyncio.CancelledError as error:
        if not stopped.is_set():
            raise
        window.end(_CLOSED, error)


@contextmanager
def _span(batch: Sequence[Encoded]) -> Iterator[Span]:
    tracer = trace.get_tracer("meterscope.client")
    with tracer.start_as_current_span(
        _METHOD,
        kind=SpanKind.CLIENT,
        attributes=attributes_of(_METHOD, batch),
        links=links_of(batch),
        record_exception=False,
    ) as span:
        yield span
