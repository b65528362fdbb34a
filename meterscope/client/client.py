"""The client: what a program holds on to."""

import atexit
import logging
import threading
import time as clock
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
from meterscope.client.buffer import Buffer
from meterscope.client.delivery import Delivery
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


class Client:
    """Sends usage events to Meterscope, in batches, from a thread of its own. Safe to share between threads.

        with Client("127.0.0.1:8081", source="shop/web-1") as client:
            client.track("http.request", customer_key="acme", quantities={"bytes": 4321})

    A batch that is not answered is sent again with the same ids, which count once however often they arrive. When the
    queue is full, `track` waits. Events that could not be delivered come back in `Undelivered`, from the next `track`,
    `flush` or `close`, never both silently and for good.

    With a `spool`, what cannot be sent for `spool_after` goes to disk, and from there to the server once it is back, in
    order and by the same ids: also by the next client that opens the folder, should this process end before. When the
    spool's bound is reached, `track` raises SpoolFull. A batch that the server then refuses for what it holds is put by in
    the folder's `refused/`, with the reason, and those behind it go on. What is still in the queue dies with the process: at most what
    was tracked within `linger` and `spool_after`.

    Trace context: each batch is a client span with a link to each span that was current in `track`, and its context
    travels in the call's metadata (W3C). Only the OpenTelemetry API is used; without its SDK this costs nothing.

    Args:
        address: usage's host:port.
        source: the source of events that name none, such as `shop/web-1`. 1 to 256 bytes.
        token: sent as `authorization: Bearer …`, if given.
        credentials: for TLS; without them the connection is not encrypted.
        max_batch_events: the most events of a batch, 1 to 10,000.
        max_batch_bytes: the most bytes of a batch, at most 31 MiB.
        linger: how long an event waits for company.
        max_queued_events: the most events that wait or are under way before `track` blocks.
        timeout: the deadline of each try.
        retry_for: how long a batch is tried before its events count as undelivered. With a spool, of `ingest` only.
        on_results: called in a thread of the client with the results of each batch that `track` filled. What it raises
            is logged and changes nothing.
        spool: a folder for this client alone, made if it is not there.
        max_spool_bytes: the most bytes of its files, at least 64 KiB.
        spool_after: how long a batch is tried before it goes to the spool.

    Raises:
        ValueError: a bound is out of range.
        SpoolBusy: another client has the spool's folder.
        SpoolDamaged: a spool file is not as it was written.
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
        self._spool = self._options.open_spool()
        self._books = Books(on_results)
        self._buffer = Buffer(self._options.batches())
        self._channel = (
            grpc.secure_channel(address, credentials, options=CHANNEL_OPTIONS)
            if credentials
            else grpc.insecure_channel(address, options=CHANNEL_OPTIONS)
        )
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()
        self._delivery = Delivery(self._channel, token=token, timeout=timeout)
        self._limits = limit_service_pb2_grpc.LimitServiceStub(self._channel)
        # Set when the client must not wait any more; and when what is in the spool need not be delivered by it.
        self._stopped = threading.Event()
        self._finishing = threading.Event()
        self._spooled = threading.Condition()
        self._threads = [threading.Thread(target=self._run, name="meterscope-client", daemon=True)]
        if self._spool is not None:
            self._threads.append(
                threading.Thread(target=self._drain, args=(self._spool,), name="meterscope-spool", daemon=True)
            )
        for thread in self._threads:
            thread.start()
        # A program that forgets to close still gets its events delivered, or an error on its standard error.
        atexit.register(self.close)

    @property
    def counts(self) -> Mapping[Outcome, int]:
        """How many events had which outcome since the client was opened."""
        return self._books.counts

    @property
    def spooled(self) -> int:
        """How many events wait in the spool."""
        return 0 if self._spool is None else self._spool.events

    def track(
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
        """Queue one event and return it, with the id that every try will carry. Waits while the queue is full.

        Args:
            type: see `Event`, as for all that is not named here.
            customer_id: see `Event`.
            customer_key: see `Event`.
            quantities: see `Event`.
            attributes: see `Event`.
            time: see `Event`.
            id: see `Event`.
            source: see `Event`.
            wait: the longest wait for room in the queue; for ever when None.

        Raises:
            TypeError: a quantity is a float (see `Event`).
            ValueError: the event is not well formed (see `Event`).
            QueueFull: there was no room within `wait`; the event was not taken.
            SpoolFull: the server is away and the spool has reached its bound; the event was not taken.
            Undelivered: events queued earlier were given up; this one was not taken.
            ClientClosed: the client was closed.
        """
        event = make_event(type, customer_id, customer_key, quantities, attributes, time, id, source)
        self.enqueue(event, wait=wait)
        return event

    def enqueue(self, event: Event, *, wait: timedelta | None = None) -> None:
        """Queue an event that is made already. See `track`."""
        self._books.check_open()
        self._books.raise_failures()
        item = self._options.encode(event)
        check_spool(self._spool, self._buffer.bytes, item)
        if not self._buffer.put(item, timeout=None if wait is None else wait.total_seconds()):
            if self._books.is_closed:
                raise ClientClosed("the client was closed while the event waited for room; it was not taken")
            raise QueueFull(f"no room for the event within {wait}; it was not taken")

    def ingest(self, events: Iterable[Event]) -> list[Result]:
        """Send events now, in this thread, and return what became of each, in order. They never go to the spool.

        Raises:
            Undelivered: some were not acknowledged; its `results` are those of the others.
            ClientClosed: the client was closed.
        """
        self._books.check_open()
        items = [self._options.encode(event) for event in events]
        results: list[Result] = []
        for batch in self._options.split(items):
            try:
                sent = self._delivery.send(batch, retry_for=self._options.retry_for, stopped=self._stopped)
            except Undelivered as error:
                rest = [item.event for item in items[len(results) :]]
                raise Undelivered(rest, error.reason, results=results, is_refused=error.is_refused) from error
            results += self._books.count(sent)
        return results

    def stream(self, events: Iterable[Event]) -> Iterator[Result]:
        """Send many events, in this thread, and yield what became of each, in order. They never go to the spool.

        For what is there already, such as the events of past months: they are taken as the answers come, so that memory
        stays flat, and several batches are under way at a time over one stream (StreamEvents). Should it break, what was
        not answered is sent again over another one, and may then be DUPLICATE. A batch that is not full waits for more
        events however long they take: for events that happen now there is `track`.

            for result in client.stream(read(file)):
                if result.outcome is Outcome.REJECTED:
                    print(result.event.id, result.message)

        Raises:
            Undelivered: some were taken and not acknowledged; what came before them was.
            ClientClosed: the client was closed.
        """
        self._books.check_open()
        batches = self._options.split(map(self._options.encode, events))
        for results in self._delivery.stream(batches, retry_for=self._options.retry_for, stopped=self._stopped):
            yield from self._books.count(results)

    def check_limit(
        self, customer_id: str, meter: str, quantity: Quantity = 1, *, timeout: timedelta = CHECK_TIMEOUT
    ) -> LimitCheck:
        """Ask whether a customer may use `quantity` more of a meter. Changes nothing; normally < 250 ms behind.

        Raises:
            CallFailed: no answer: NOT_FOUND, UNAVAILABLE, DEADLINE_EXCEEDED, …; decide whether to go on without one.
        """
        request = limits.check_request(Check(customer_id, meter, quantity))
        return limits.limit_check(self._ask(self._limits.CheckLimit, request, timeout))

    def check_limits(
        self, checks: Iterable[Check], *, timeout: timedelta = CALL_TIMEOUT
    ) -> list[LimitCheck | LimitFault]:
        """Ask up to 1,000 such questions at once; the answers come in their order.

        Raises:
            CallFailed: no answer at all. What is wrong with one check is a LimitFault in its place.
        """
        request = limits_pb.BatchCheckLimitsRequest(checks=[limits.check_request(check) for check in checks])
        return limits.limit_checks(self._ask(self._limits.BatchCheckLimits, request, timeout))

    def reserve(
        self,
        customer_id: str,
        meter: str,
        quantity: Quantity,
        *,
        ttl: timedelta | None = None,
        request_id: str | None = None,
        timeout: timedelta = CALL_TIMEOUT,
    ) -> Reservation:
        """Set quota aside for use that is about to happen. Strict, unlike `check_limit`.

        Args:
            customer_id: the customer, `cus_…`.
            meter: the meter's id.
            quantity: how much.
            ttl: how long it holds unless it is committed or released; the service's own time when None.
            request_id: the same one again gets the same reservation; a new one when None.
            timeout: for the answer.

        Raises:
            CallFailed: with reason `LIMIT_REACHED` if it is refused.
        """
        request = limits.reserve_request(customer_id, meter, quantity, ttl, request_id)
        return limits.reservation_of(self._ask(self._limits.ReserveQuota, request, timeout))

    def commit(
        self,
        reservation: Reservation,
        event: Event,
        *,
        quantity: Quantity | None = None,
        timeout: timedelta = CALL_TIMEOUT,
    ) -> Reservation:
        """Say that reserved use has happened and is told by `event`, which is tracked as any other. Safe to repeat.

        Raises:
            CallFailed: the reservation has expired, was released, or was committed by another event.
        """
        request = limits.commit_request(reservation, event, self._options.source, quantity)
        return limits.reservation_of(self._ask(self._limits.CommitReservation, request, timeout))

    def release(self, reservation: Reservation, *, timeout: timedelta = CALL_TIMEOUT) -> Reservation:
        """Give reserved quota back. Safe to repeat.

        Raises:
            CallFailed: it was committed.
        """
        request = limits.release_request(reservation)
        return limits.reservation_of(self._ask(self._limits.ReleaseReservation, request, timeout))

    def flush(self, timeout: timedelta | None = None) -> None:
        """Send all that is queued and spooled, and wait until it is answered.

        Raises:
            Undelivered: events were given up.
            TimeoutError: it takes longer than `timeout`; nothing is lost, the client goes on trying.
        """
        seconds = None if timeout is None else timeout.total_seconds()
        started = clock.monotonic()
        done = self._buffer.flush(timeout=seconds)
        if done and self._spool is not None:
            left = None if seconds is None else max(0.0, started + seconds - clock.monotonic())
            with self._spooled:
                done = self._spooled.wait_for(lambda: self._spool is None or self._spool.is_empty, left)
        self._books.raise_failures()
        if not done:
            raise TimeoutError(f"events are still on their way after {timeout}")

    def close(self, timeout: timedelta = timedelta(seconds=30)) -> None:
        """Deliver what is queued, for at most `timeout`, and close the connection. A second call does nothing.

        What is spooled is delivered too, as long as the server takes it; the rest stays there for the next client.

        Raises:
            Undelivered: events were given up, now or before.
        """
        if not self._books.close():
            return
        atexit.unregister(self.close)
        ends = clock.monotonic() + timeout.total_seconds()
        self._buffer.close()
        self._threads[0].join(timeout.total_seconds())
        self._finishing.set()
        with self._spooled:
            self._spooled.notify_all()
        for thread in self._threads[1:]:
            thread.join(max(0.0, ends - clock.monotonic()))
        self._stopped.set()
        self._channel.close()
        for thread in self._threads:
            thread.join()
        if self._spool is not None:
            if not self._spool.is_empty:
                _log.warning("%d events stay in the spool for the next client", self._spool.events)
            self._spool.close()
        self._books.raise_failures()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, method: Callable[..., Any], request: Any, timeout: timedelta) -> Any:
        self._books.check_open()
        try:
            return method(request, timeout=timeout.total_seconds(), metadata=self._metadata)
        except grpc.RpcError as error:
            raise failed(error) from error

    def _run(self) -> None:
        while batch := self._buffer.take():
            try:
                self._settle(batch)
            except Undelivered as error:
                self._books.keep(error)
            except Exception as error:  # noqa: BLE001 - whatever it is, the events go back to the program
                self._books.keep(unsent(batch, error))
            finally:
                self._buffer.release(batch)

    def _settle(self, batch: list[Encoded]) -> None:
        """Send a batch, or spool it. While others are in the spool it goes behind them, so that the order stays."""
        if self._spool is None:
            self._books.report(self._send(batch, self._options.retry_for))
            return
        is_told = False
        while not (self._spool.is_empty and self._is_sent(batch)):
            try:
                self._put_aside(self._spool, batch)
            except (SpoolFull, OSError) as error:
                if not is_told:
                    _log.warning("%d events wait in memory: %s", len(batch), error)
                is_told = True
                if self._stopped.wait(_SPOOL_WAIT):
                    raise Undelivered([item.event for item in batch], str(error)) from error
            else:
                return

    def _is_sent(self, batch: list[Encoded]) -> bool:
        """Try to send a batch for as long as none is spooled for it; say whether it is settled."""
        try:
            self._books.report(self._send(batch, self._options.spool_after))
        except Undelivered as error:
            if error.is_refused:
                raise
            return False
        return True

    def _put_aside(self, spool: Spool, batch: list[Encoded]) -> None:
        with self._spooled:
            spool.append([item.message for item in batch])
            self._spooled.notify_all()

    def _drain(self, spool: Spool) -> None:
        """Deliver what is in the spool, in its order."""
        while True:
            with self._spooled:
                self._spooled.wait_for(lambda: not spool.is_empty or self._finishing.is_set())
            if spool.is_empty:
                return
            try:
                self._drain_head(spool)
            except Exception as error:  # noqa: BLE001 - whatever it is, the events stay where they are
                if self._finishing.is_set():
                    return
                _log.warning("the spool waits: %s", error)
                self._finishing.wait(_SPOOL_WAIT)

    def _drain_head(self, spool: Spool) -> None:
        results: list[Result] = []
        try:
            results = self._send([decode(message) for message in spool.head()], None, self._finishing)
        except Undelivered as error:
            if not is_for_good(error):
                raise
            with self._spooled:
                put_by(spool, error)
                self._spooled.notify_all()
        else:
            with self._spooled:
                spool.remove()
                self._spooled.notify_all()
            self._books.report(results)

    def _send(
        self, batch: list[Encoded], retry_for: timedelta | None, stopped: threading.Event | None = None
    ) -> list[Result]:
        sent = self._delivery.send(batch, retry_for=retry_for, stopped=stopped or self._stopped)
        return self._books.count(sent)
