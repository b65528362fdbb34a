"""Delivers one batch: sends it, with the same ids, until it is answered or the time for it is over."""

import asyncio
import random
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
        self.request = pb.IngestEventsRequest(
            events=[item.message for item in batch], request_id=str(uuid_utils.uuid7())
        )
        carrier: dict[str, str] = {}
        propagate.inject(carrier)
        self.metadata = tuple(carrier.items())
        self._batch = batch
        self._span = span
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
        self._span.add_event("retry", {"rpc.response.status_code": code.name, "meterscope.wait_seconds": wait})
        self._delay = min(self._delay * 2, _LONGEST_DELAY)
        return wait

    def end(self, reason: str, error: BaseException | None, *, is_refused: bool = False, code: str = "") -> NoReturn:
        """Give up.

        Raises:
            Undelivered: always.
        """
        self._span.set_status(StatusCode.ERROR, reason)
        raise Undelivered([item.event for item in self._batch], reason, is_refused=is_refused, code=code) from error

    def _checked(self, wait: float, reason: str, error: BaseException | None) -> float:
        if self._give_up is not None and wait > 0 and time.monotonic() + wait > self._give_up:
            self.end(reason, error)
        return wait


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
            wait = tries.begin()
            if wait and stopped.wait(wait):
                tries.end("the client was closed", None)
            while True:
                try:
                    response = self._stub.IngestEvents(
                        tries.request, timeout=self._timeout, metadata=(*self._metadata, *tries.metadata)
                    )
                except grpc.RpcError as error:
                    if stopped.wait(tries.again(error)):
                        tries.end(_told(error), error)
                else:
                    return _results(batch, response, span)


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
            wait = tries.begin()
            if wait and await is_set_within(stopped, wait):
                tries.end("the client was closed", None)
            while True:
                try:
                    response = await self._stub.IngestEvents(
                        tries.request, timeout=self._timeout, metadata=(*self._metadata, *tries.metadata)
                    )
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
        attributes={"rpc.system.name": "grpc", "rpc.method": METHOD, "meterscope.batch.events": len(batch)},
        links=_links(batch),
        record_exception=False,
    ) as span:
        yield span


def _links(batch: Sequence[Encoded]) -> list[Link]:
    contexts = {item.link.span_id: item.link for item in batch if item.link}
    return [Link(context) for context in list(contexts.values())[:_MOST_LINKS]]


def _told(error: grpc.RpcError) -> str:
    call: Any = error
    return f"{call.code().name}: {call.details()}"


def _results(batch: Sequence[Encoded], response: pb.IngestEventsResponse, span: Span) -> list[Result]:
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
