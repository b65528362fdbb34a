"""The client: what a program holds on to."""

import atexit
import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Final, Self

import grpc
from opentelemetry import trace

from meterscope.client.buffer import Buffer
from meterscope.client.delivery import Delivery
from meterscope.client.errors import ClientClosed, QueueFull, Undelivered
from meterscope.client.event import Encoded, Event, Outcome, Quantity, Result, encode
from meterscope.connection import CHANNEL_OPTIONS

DEFAULT_ADDRESS: Final = "127.0.0.1:8081"
# IngestEvents takes at most 10,000 events in one message of at most 32 MiB.
MOST_BATCH_EVENTS: Final = 10_000
MOST_BATCH_BYTES: Final = 31 << 20

_log = logging.getLogger(__name__)


class Client:
    """Sends usage events to Meterscope, in batches, from a thread of its own. Safe to share between threads.

        with Client("127.0.0.1:8081", source="shop/web-1") as client:
            client.track("http.request", customer_key="acme", quantities={"bytes": 4321})

    A batch that is not answered is sent again with the same ids, which count once however often they arrive. When the
    queue is full, `track` waits. Events that could not be delivered come back in `Undelivered`, from the next `track`,
    `flush` or `close`, never both silently and for good.

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
        retry_for: how long a batch is tried before its events count as undelivered.
        on_results: called in the client's thread with the results of each batch that `track` filled. What it raises is
            logged and changes nothing.

    Raises:
        ValueError: a batch bound is out of range.
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
    ) -> None:
        if not 1 <= max_batch_events <= MOST_BATCH_EVENTS:
            raise ValueError(f"max_batch_events is {max_batch_events}; choose 1 to {MOST_BATCH_EVENTS:,}")
        if not 1 <= max_batch_bytes <= MOST_BATCH_BYTES:
            raise ValueError(f"max_batch_bytes is {max_batch_bytes}; choose 1 to {MOST_BATCH_BYTES:,}")
        self._source = source
        self._max_batch_events = max_batch_events
        self._max_batch_bytes = max_batch_bytes
        self._on_results = on_results
        self._buffer = Buffer(
            capacity=max(max_queued_events, 1), max_events=max_batch_events, max_bytes=max_batch_bytes, linger=linger
        )
        self._channel = (
            grpc.secure_channel(address, credentials, options=CHANNEL_OPTIONS)
            if credentials
            else grpc.insecure_channel(address, options=CHANNEL_OPTIONS)
        )
        self._delivery = Delivery(self._channel, token=token, timeout=timeout, retry_for=retry_for)
        self._lock = threading.Lock()
        self._counts: Counter[Outcome] = Counter()
        self._failures: list[Undelivered] = []
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="meterscope-client", daemon=True)
        self._thread.start()
        # A program that forgets to close still gets its events delivered, or an error on its standard error.
        atexit.register(self.close)

    @property
    def counts(self) -> Mapping[Outcome, int]:
        """How many events had which outcome since the client was opened."""
        with self._lock:
            return dict(self._counts)

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
            Undelivered: events queued earlier were given up; this one was not taken.
            ClientClosed: the client was closed.
        """
        given: dict[str, Any] = {"time": time, "id": id, "quantities": quantities, "attributes": attributes}
        event = Event(
            type=type,
            customer_id=customer_id,
            customer_key=customer_key,
            source=source,
            **{name: value for name, value in given.items() if value is not None},
        )
        self.enqueue(event, wait=wait)
        return event

    def enqueue(self, event: Event, *, wait: timedelta | None = None) -> None:
        """Queue an event that is made already. See `track`."""
        if self._closed:
            raise ClientClosed("the client is closed")
        self._raise_failures()
        span = trace.get_current_span().get_span_context()
        item = encode(event, source=self._source, link=span if span.is_valid else None)
        if not self._buffer.put(item, timeout=None if wait is None else wait.total_seconds()):
            if self._closed:
                raise ClientClosed("the client was closed while the event waited for room; it was not taken")
            raise QueueFull(f"no room for the event within {wait}; it was not taken")

    def ingest(self, events: Iterable[Event]) -> list[Result]:
        """Send events now, in this thread, and return what became of each, in order.

        Raises:
            Undelivered: some were not acknowledged; its `results` are those of the others.
            ClientClosed: the client was closed.
        """
        if self._closed:
            raise ClientClosed("the client is closed")
        items = [encode(event, source=self._source) for event in events]
        results: list[Result] = []
        for batch in self._batches(items):
            try:
                results += self._count(self._delivery.send(batch))
            except Undelivered as error:
                rest = [item.event for item in items[len(results) :]]
                raise Undelivered(rest, error.reason, results=results) from error
        return results

    def flush(self, timeout: timedelta | None = None) -> None:
        """Send all that is queued and wait until it is answered.

        Raises:
            Undelivered: events were given up.
            TimeoutError: it takes longer than `timeout`; nothing is lost, the client goes on trying.
        """
        done = self._buffer.flush(timeout=None if timeout is None else timeout.total_seconds())
        self._raise_failures()
        if not done:
            raise TimeoutError(f"events are still on their way after {timeout}")

    def close(self, timeout: timedelta = timedelta(seconds=30)) -> None:
        """Deliver what is queued, for at most `timeout`, and close the connection. A second call does nothing.

        Raises:
            Undelivered: events were given up, now or before.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
        atexit.unregister(self.close)
        self._buffer.close()
        self._thread.join(timeout.total_seconds())
        self._delivery.stop()
        self._channel.close()
        self._thread.join()
        self._raise_failures()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _run(self) -> None:
        while batch := self._buffer.take():
            try:
                results = self._count(self._delivery.send(batch))
            except Undelivered as error:
                self._keep(error)
            except Exception as error:  # noqa: BLE001 - whatever it is, the events go back to the program
                self._keep(Undelivered([item.event for item in batch], f"{type(error).__name__}: {error}"))
            else:
                self._report(results)
            finally:
                self._buffer.release(len(batch))

    def _batches(self, items: Sequence[Encoded]) -> Iterable[list[Encoded]]:
        batch: list[Encoded] = []
        size = 0
        for item in items:
            if batch and (len(batch) == self._max_batch_events or size + item.size > self._max_batch_bytes):
                yield batch
                batch, size = [], 0
            batch.append(item)
            size += item.size
        if batch:
            yield batch

    def _count(self, results: list[Result]) -> list[Result]:
        with self._lock:
            self._counts.update(result.outcome for result in results)
        return results

    def _report(self, results: list[Result]) -> None:
        refused = [result for result in results if result.outcome in {Outcome.REJECTED, Outcome.CONFLICT}]
        if self._on_results is None:
            for result in refused:
                _log.warning("event %s refused: %s", result.event.id, result.message)
            return
        try:
            self._on_results(results)
        except Exception:  # noqa: BLE001 - the program's own fault must not stop the delivery
            _log.exception("on_results failed")

    def _keep(self, error: Undelivered) -> None:
        with self._lock:
            self._failures.append(error)

    def _raise_failures(self) -> None:
        with self._lock:
            failures, self._failures = self._failures, []
        if failures:
            events = [event for failure in failures for event in failure.events]
            raise Undelivered(events, failures[0].reason) from failures[0]
