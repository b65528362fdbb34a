"""The client for programs on asyncio: the same as `Client`, over grpc.aio."""

import asyncio
import logging
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import grpc

from meterscope.client import limits
from meterscope.client.bookkeeping import (
    DEFAULT_ADDRESS,
    Books,
    Options,
    check_spool,
    is_for_good,
    make_event,
    put_by,
    unsent,
)
from meterscope.client.buffer import AsyncBuffer
from meterscope.client.delivery import AsyncDelivery, is_set_within
from meterscope.client.errors import ClientClosed, QueueFull, SpoolFull, Undelivered
from meterscope.client.event import Encoded, Event, Outcome, Quantity, Result, decode
from meterscope.client.limits import CALL_TIMEOUT, CHECK_TIMEOUT, Check, LimitCheck, LimitFault, Reservation
from meterscope.client.spool import Spool
from meterscope.client.status import failed
from meterscope.connection import CHANNEL_OPTIONS
from meterscope.usage.v1 import limit_service_pb2 as limits_pb
from meterscope.usage.v1 import limit_service_pb2_grpc

_SPOOL_WAIT: Final = 1.0

_log = logging.getLogger(__name__)


class AsyncClient:
    """Sends usage events to Meterscope, in batches, from a task of its own. For the tasks of one event loop.

        async with AsyncClient("127.0.0.1:8081", source="shop/web-1") as client:
            await client.track("http.request", customer_key="acme", quantities={"bytes": 4321})

    Everything is as `Client` has it, arguments, spool and errors included. Open it by `async with`, or by `open`.
    `on_results` is called in the event loop and must not wait. A client that is not closed delivers nothing more once
    its loop has ended.

    Args:
        address: see `Client`, as for all others.
        source: see `Client`.
        token: see `Client`.
        credentials: see `Client`.
        max_batch_events: see `Client`.
        max_batch_bytes: see `Client`.
        linger: see `Client`.
        max_queued_events: see `Client`.
        timeout: see `Client`.
        retry_for: see `Client`.
        on_results: see `Client`.
        spool: see `Client`.
        max_spool_bytes: see `Client`.
        spool_after: see `Client`.

    Raises:
        ValueError: a bound is out of range.
    """

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        source: str = "",
        token: str | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        max_batch_events: int = 1_000,
        max_batch_bytes: int = 4 << 20,
        linger: timedelta = timedelta(milliseconds=100),
        max_queued_events: int = 20_000,
        timeout: timedelta = timedelta(seconds=10),
        retry_for: timedelta = timedelta(minutes=5),
        on_results: Callable[[Sequence[Result]], None] | None = None,
        spool: Path | str | None = None,
        max_spool_bytes: int = 256 << 20,
        spool_after: timedelta = timedelta(seconds=2),
    ) -> None:
        self._options = Options(
            source=source,
            max_batch_events=max_batch_events,
            max_batch_bytes=max_batch_bytes,
            linger=linger,
            max_queued_events=max_queued_events,
            retry_for=retry_for,
            spool=None if spool is None else Path(spool),
            max_spool_bytes=max_spool_bytes,
            spool_after=spool_after,
        )
        self._address = address
        self._token = token
        self._credentials = credentials
        self._timeout = timeout
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()
        self._books = Books(on_results)
        self._buffer = AsyncBuffer(self._options.batches())
        self._stopped = asyncio.Event()
        self._finishing = asyncio.Event()
        self._spooled = asyncio.Condition()
        self._spool: Spool | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._channel: grpc.aio.Channel
        self._delivery: AsyncDelivery
        self._limits: Any

    async def open(self) -> Self:
        """Open the connection and the spool. Called once, by `async with`.

        Raises:
            SpoolBusy: another client has the spool's folder.
            SpoolDamaged: a spool file is not as it was written.
        """
        self._spool = await asyncio.to_thread(self._options.open_spool)
        self._channel = (
            grpc.aio.secure_channel(self._address, self._credentials, options=CHANNEL_OPTIONS)
            if self._credentials
            else grpc.aio.insecure_channel(self._address, options=CHANNEL_OPTIONS)
        )
        self._delivery = AsyncDelivery(self._channel, token=self._token, timeout=self._timeout)
        self._limits = limit_service_pb2_grpc.LimitServiceStub(self._channel)
        self._tasks.append(asyncio.create_task(self._run(), name="meterscope-client"))
        if self._spool is not None:
            self._tasks.append(asyncio.create_task(self._drain(self._spool), name="meterscope-spool"))
        return self

    @property
    def counts(self) -> Mapping[Outcome, int]:
        """How many events had which outcome since the client was opened."""
        return self._books.counts

    @property
    def spooled(self) -> int:
        """How many events wait in the spool."""
        return 0 if self._spool is None else self._spool.events

    async def track(
        self,
        type: str,  # noqa: A002 - the event's own field name
        *,
        customer_id: str = "",
        customer_key: str = "",
        quantities: Mapping[str, Quantity] | None = None,
        attributes: Mapping[str, str] | None = None,
        time: datetime | None = None,
        id: str | None = None,  # noqa: A002 - the event's own field name
        source: str = "",
        wait: timedelta | None = None,
    ) -> Event:
        """Queue one event and return it. As `Client.track`."""
        event = make_event(type, customer_id, customer_key, quantities, attributes, time, id, source)
        await self.enqueue(event, wait=wait)
        return event

    async def enqueue(self, event: Event, *, wait: timedelta | None = None) -> None:
        """Queue an event that is made already. As `Client.enqueue`."""
        self._check_open()
        self._books.raise_failures()
        item = self._options.encode(event)
        check_spool(self._spool, self._buffer.bytes, item)
        if not await self._buffer.put(item, timeout=None if wait is None else wait.total_seconds()):
            if self._books.is_closed:
                raise ClientClosed("the client was closed while the event waited for room; it was not taken")
            raise QueueFull(f"no room for the event within {wait}; it was not taken")

    async def ingest(self, events: Iterable[Event]) -> list[Result]:
        """Send events now and return what became of each, in order. As `Client.ingest`."""
        self._check_open()
        items = [self._options.encode(event) for event in events]
        results: list[Result] = []
        for batch in self._options.split(items):
            try:
                sent = await self._delivery.send(batch, retry_for=self._options.retry_for, stopped=self._stopped)
            except Undelivered as error:
                rest = [item.event for item in items[len(results) :]]
                raise Undelivered(rest, error.reason, results=results, is_refused=error.is_refused) from error
            results += self._books.count(sent)
        return results

    async def stream(self, events: Iterable[Event] | AsyncIterable[Event]) -> AsyncIterator[Result]:
        """Send many events, and yield what became of each, in order. As `Client.stream`.

            async for result in client.stream(read(file)):
                if result.outcome is Outcome.REJECTED:
                    print(result.event.id, result.message)

        Whoever leaves such a loop before its end closes the generator (`contextlib.aclosing`), or the stream stays open
        until Python finds it.

        Args:
            events: taken as answers come. What is no AsyncIterable is read in the event loop, which waits for it.

        Raises:
            Undelivered: some were taken and not acknowledged; what came before them was.
            ClientClosed: the client was closed, or is not open yet.
        """
        self._check_open()
        batches = self._options.split_async(self._encoded(events))
        answers = self._delivery.stream(batches, retry_for=self._options.retry_for, stopped=self._stopped)
        async with aclosing(answers):
            async for results in answers:
                for result in self._books.count(results):
                    yield result

    async def check_limit(
        self,
        customer_id: str,
        meter: str,
        quantity: Quantity = 1,
        *,
        timeout: timedelta = CHECK_TIMEOUT,  # noqa: ASYNC109 - of the call, which the server hears of
    ) -> LimitCheck:
        """Ask whether a customer may use `quantity` more of a meter. As `Client.check_limit`."""
        request = limits.check_request(Check(customer_id, meter, quantity))
        return limits.limit_check(await self._ask("CheckLimit", request, timeout))

    async def check_limits(
        self,
        checks: Iterable[Check],
        *,
        timeout: timedelta = CALL_TIMEOUT,  # noqa: ASYNC109 - likewise
    ) -> list[LimitCheck | LimitFault]:
        """Ask up to 1,000 such questions at once. As `Client.check_limits`."""
        request = limits_pb.BatchCheckLimitsRequest(checks=[limits.check_request(check) for check in checks])
        return limits.limit_checks(await self._ask("BatchCheckLimits", request, timeout))

    async def reserve(
        self,
        customer_id: str,
        meter: str,
        quantity: Quantity,
        *,
        ttl: timedelta | None = None,
        request_id: str | None = None,
        timeout: timedelta = CALL_TIMEOUT,  # noqa: ASYNC109 - likewise
    ) -> Reservation:
        """Set quota aside for use that is about to happen. As `Client.reserve`."""
        request = limits.reserve_request(customer_id, meter, quantity, ttl, request_id)
        return limits.reservation_of(await self._ask("ReserveQuota", request, timeout))

    async def commit(
        self,
        reservation: Reservation,
        event: Event,
        *,
        quantity: Quantity | None = None,
        timeout: timedelta = CALL_TIMEOUT,  # noqa: ASYNC109 - likewise
    ) -> Reservation:
        """Say that reserved use has happened and is told by `event`. As `Client.commit`."""
        request = limits.commit_request(reservation, event, self._options.source, quantity)
        return limits.reservation_of(await self._ask("CommitReservation", request, timeout))

    async def release(
        self,
        reservation: Reservation,
        *,
        timeout: timedelta = CALL_TIMEOUT,  # noqa: ASYNC109 - likewise
    ) -> Reservation:
        """Give reserved quota back. As `Client.release`."""
        return limits.reservation_of(
            await self._ask("ReleaseReservation", limits.release_request(reservation), timeout)
        )

    async def flush(self, timeout: timedelta | None = None) -> None:  # noqa: ASYNC109 - as Client has it
        """Send all that is queued and spooled, and wait until it is answered. As `Client.flush`."""
        self._check_open()
        try:
            async with asyncio.timeout(None if timeout is None else timeout.total_seconds()):
                await self._buffer.flush(timeout=None)
                async with self._spooled:
                    await self._spooled.wait_for(lambda: self._spool is None or self._spool.is_empty)
        except TimeoutError:
            self._books.raise_failures()
            raise TimeoutError(f"events are still on their way after {timeout}") from None
        self._books.raise_failures()

    async def close(self, timeout: timedelta = timedelta(seconds=30)) -> None:  # noqa: ASYNC109 - as Client has it
        """Deliver what is queued, for at most `timeout`, and close the connection. As `Client.close`."""
        if not self._books.close() or not self._tasks:
            return
        ends = asyncio.get_running_loop().time() + timeout.total_seconds()
        await self._buffer.close()
        await asyncio.wait(self._tasks[:1], timeout=timeout.total_seconds())
        self._finishing.set()
        async with self._spooled:
            self._spooled.notify_all()
        await asyncio.wait(self._tasks, timeout=max(0.0, ends - asyncio.get_running_loop().time()))
        self._stopped.set()
        # Without grace the calls under way end as CANCELLED at once.
        await self._channel.close()
        await asyncio.gather(*self._tasks)
        if self._spool is not None:
            if not self._spool.is_empty:
                _log.warning("%d events stay in the spool for the next client", self._spool.events)
            self._spool.close()
        self._books.raise_failures()

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def _check_open(self) -> None:
        self._books.check_open()
        if not self._tasks:
            raise ClientClosed("the client is not open yet: use `async with`, or await `open`")

    async def _encoded(self, events: Iterable[Event] | AsyncIterable[Event]) -> AsyncIterator[Encoded]:
        if isinstance(events, AsyncIterable):
            async for event in events:
                yield self._options.encode(event)
        else:
            for event in events:
                yield self._options.encode(event)

    async def _ask(self, name: str, request: Any, timeout: timedelta) -> Any:  # noqa: ASYNC109 - of the call
        self._check_open()
        method: Callable[..., Awaitable[Any]] = getattr(self._limits, name)
        try:
            return await method(request, timeout=timeout.total_seconds(), metadata=self._metadata)
        except grpc.RpcError as error:
            raise failed(error) from error

    async def _run(self) -> None:
        while batch := await self._buffer.take():
            try:
                await self._settle(batch)
            except Undelivered as error:
                self._books.keep(error)
            except Exception as error:  # noqa: BLE001 - whatever it is, the events go back to the program
                self._books.keep(unsent(batch, error))
            finally:
                await self._buffer.release(batch)

    async def _settle(self, batch: list[Encoded]) -> None:
        """Send a batch, or spool it. While others are in the spool it goes behind them, so that the order stays."""
        if self._spool is None:
            self._books.report(await self._send(batch, self._options.retry_for, self._stopped))
            return
        is_told = False
        while not (self._spool.is_empty and await self._is_sent(batch)):
            try:
                await self._put_aside(self._spool, batch)
            except (SpoolFull, OSError) as error:
                if not is_told:
                    _log.warning("%d events wait in memory: %s", len(batch), error)
                is_told = True
                if await is_set_within(self._stopped, _SPOOL_WAIT):
                    raise Undelivered([item.event for item in batch], str(error)) from error
            else:
                return

    async def _is_sent(self, batch: list[Encoded]) -> bool:
        """Try to send a batch for as long as none is spooled for it; say whether it is settled."""
        try:
            self._books.report(await self._send(batch, self._options.spool_after, self._stopped))
        except Undelivered as error:
            if error.is_refused:
                raise
            return False
        return True

    async def _put_aside(self, spool: Spool, batch: list[Encoded]) -> None:
        async with self._spooled:
            await asyncio.to_thread(spool.append, [item.message for item in batch])
            self._spooled.notify_all()

    async def _drain(self, spool: Spool) -> None:
        """Deliver what is in the spool, in its order."""
        while True:
            async with self._spooled:
                await self._spooled.wait_for(lambda: not spool.is_empty or self._finishing.is_set())
            if spool.is_empty:
                return
            try:
                await self._drain_head(spool)
            except Exception as error:  # noqa: BLE001 - whatever it is, the events stay where they are
                if self._finishing.is_set():
                    return
                _log.warning("the spool waits: %s", error)
                await is_set_within(self._finishing, _SPOOL_WAIT)

    async def _drain_head(self, spool: Spool) -> None:
        messages = await asyncio.to_thread(spool.head)
        try:
            results = await self._send([decode(message) for message in messages], None, self._finishing)
        except Undelivered as error:
            if not is_for_good(error):
                raise
            async with self._spooled:
                await asyncio.to_thread(put_by, spool, error)
                self._spooled.notify_all()
        else:
            async with self._spooled:
                await asyncio.to_thread(spool.remove)
                self._spooled.notify_all()
            self._books.report(results)

    async def _send(self, batch: list[Encoded], retry_for: timedelta | None, stopped: asyncio.Event) -> list[Result]:
        return self._books.count(await self._delivery.send(batch, retry_for=retry_for, stopped=stopped))
