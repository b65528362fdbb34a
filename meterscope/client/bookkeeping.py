"""What both clients keep account of: batches of what is given, outcomes, and failures to hand back."""

import logging
import threading
from collections import Counter
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from opentelemetry import trace

from meterscope.client.batches import Batches
from meterscope.client.errors import ClientClosed, SpoolFull, Undelivered
from meterscope.client.event import Encoded, Event, Outcome, Quantity, Result, encode
from meterscope.client.spool import LEAST_BYTES, Spool

DEFAULT_ADDRESS: Final = "127.0.0.1:8081"
# IngestEvents takes at most 10,000 events in one message of at most 32 MiB.
MOST_BATCH_EVENTS: Final = 10_000
MOST_BATCH_BYTES: Final = 31 << 20
# The events themselves are at fault, which time does not heal; a wrong token is mended, and then they are taken.
_FOR_GOOD: Final = frozenset({"INVALID_ARGUMENT", "OUT_OF_RANGE", "RESOURCE_EXHAUSTED"})

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """How a client works; each is explained at `Client`.

    Raises:
        ValueError: a bound is out of range.
    """

    source: str
    max_batch_events: int
    max_batch_bytes: int
    linger: timedelta
    max_queued_events: int
    retry_for: timedelta
    spool: Path | None
    max_spool_bytes: int
    spool_after: timedelta

    def __post_init__(self) -> None:
        if not 1 <= self.max_batch_events <= MOST_BATCH_EVENTS:
            raise ValueError(f"max_batch_events is {self.max_batch_events}; choose 1 to {MOST_BATCH_EVENTS:,}")
        if not 1 <= self.max_batch_bytes <= MOST_BATCH_BYTES:
            raise ValueError(f"max_batch_bytes is {self.max_batch_bytes}; choose 1 to {MOST_BATCH_BYTES:,}")
        if self.max_spool_bytes < LEAST_BYTES:
            raise ValueError(f"max_spool_bytes is {self.max_spool_bytes}; choose at least {LEAST_BYTES:,}")

    def batches(self) -> Batches:
        """Return the queue."""
        return Batches(
            capacity=max(self.max_queued_events, 1),
            max_events=self.max_batch_events,
            max_bytes=self.max_batch_bytes,
            linger=self.linger,
        )

    def open_spool(self) -> Spool | None:
        """Open the spool, if there is to be one."""
        return None if self.spool is None else Spool(self.spool, max_bytes=self.max_spool_bytes)

    def split(self, items: Iterable[Encoded]) -> Iterator[list[Encoded]]:
        """Cut events into batches within the bounds, as they come."""
        cut = _Cut(self)
        for item in items:
            if batch := cut.add(item):
                yield batch
        if cut.rest:
            yield cut.rest

    async def split_async(self, items: AsyncIterable[Encoded]) -> AsyncIterator[list[Encoded]]:
        """Cut events into batches within the bounds, as they come. As `split`."""
        cut = _Cut(self)
        async for item in items:
            if batch := cut.add(item):
                yield batch
        if cut.rest:
            yield cut.rest

    def encode(self, event: Event) -> Encoded:
        """Encode an event, in the trace of the span that is current."""
        span = trace.get_current_span().get_span_context()
        return encode(event, source=self.source, link=span if span.is_valid else None)


class _Cut:
    """Where one batch ends and the next begins."""

    def __init__(self, options: Options) -> None:
        self._most_events = options.max_batch_events
        self._most_bytes = options.max_batch_bytes
        self._bytes = 0
        self.rest: list[Encoded] = []

    def add(self, item: Encoded) -> list[Encoded]:
        """Take the next event; return the batch that it makes full, or has no room in; none if there is none yet."""
        is_full = bool(self.rest) and self._bytes + item.size > self._most_bytes
        batch = self._take() if is_full else []
        self.rest.append(item)
        self._bytes += item.size
        return batch if len(self.rest) < self._most_events else self._take()

    def _take(self) -> list[Encoded]:
        batch, self.rest, self._bytes = self.rest, [], 0
        return batch


class Books:
    """Outcomes and failures, for any number of threads."""

    def __init__(self, on_results: Callable[[Sequence[Result]], None] | None) -> None:
        self._on_results = on_results
        self._lock = threading.Lock()
        self._reporting = threading.Lock()
        self._counts: Counter[Outcome] = Counter()
        self._failures: list[Undelivered] = []
        self.is_closed = False

    @property
    def counts(self) -> Mapping[Outcome, int]:
        """How many events had which outcome."""
        with self._lock:
            return dict(self._counts)

    def close(self) -> bool:
        """Close; say whether they were open."""
        with self._lock:
            was_open, self.is_closed = not self.is_closed, True
        return was_open

    def check_open(self) -> None:
        """Raise ClientClosed after `close`."""
        if self.is_closed:
            raise ClientClosed("the client is closed")

    def count(self, results: list[Result]) -> list[Result]:
        """Count results and return them."""
        with self._lock:
            self._counts.update(result.outcome for result in results)
        return results

    def report(self, results: Sequence[Result]) -> None:
        """Tell the program, or the log, what became of events."""
        if self._on_results is None:
            for result in results:
                if result.outcome in {Outcome.REJECTED, Outcome.CONFLICT}:
                    _log.warning("event %s refused: %s", result.event.id, result.message)
            return
        with self._reporting:
            try:
                self._on_results(results)
            except Exception:  # noqa: BLE001 - the program's own fault must not stop the delivery
                _log.exception("on_results failed")

    def keep(self, error: Undelivered) -> None:
        """Keep events that were given up, for the program."""
        with self._lock:
            self._failures.append(error)

    def raise_failures(self) -> None:
        """Hand back what was given up.

        Raises:
            Undelivered: there is something.
        """
        with self._lock:
            failures, self._failures = self._failures, []
        if failures:
            events = [event for failure in failures for event in failure.events]
            raise Undelivered(events, failures[0].reason) from failures[0]


def make_event(
    type: str,  # noqa: A002 - the event's own field name
    customer_id: str,
    customer_key: str,
    quantities: Mapping[str, Quantity] | None,
    attributes: Mapping[str, str] | None,
    time: datetime | None,
    id: str | None,  # noqa: A002 - the event's own field name
    source: str,
) -> Event:
    """Make an event of what `track` was given."""
    given: dict[str, Any] = {"time": time, "id": id, "quantities": quantities, "attributes": attributes}
    return Event(
        type=type,
        customer_id=customer_id,
        customer_key=customer_key,
        source=source,
        **{name: value for name, value in given.items() if value is not None},
    )


def check_spool(spool: Spool | None, waiting: int, item: Encoded) -> None:
    """See whether an event finds room, should all that waits have to go to the spool.

    Raises:
        SpoolFull: the server is away and there is no room. The event is not taken.
    """
    if spool is not None and not spool.is_empty and not spool.has_room(waiting + item.size):
        raise SpoolFull(
            f"the server is away and the spool is full: {spool.size:,} bytes on disk and {waiting:,} on their way "
            f"there, of at most {spool.max_bytes:,}; the event was not taken"
        )


def unsent(batch: Sequence[Encoded], error: Exception) -> Undelivered:
    """Return events whose delivery failed in an unforeseen way."""
    return Undelivered([item.event for item in batch], f"{type(error).__name__}: {error}")


def is_for_good(error: Exception) -> bool:
    """Whether a batch was refused for what it holds, so that it will never be taken."""
    return isinstance(error, Undelivered) and error.code in _FOR_GOOD


def put_by(spool: Spool, error: Exception) -> None:
    """Put the spool's oldest batch by, since the server refused it for good, so that those behind it go on.

    Raises:
        OSError: the disk refuses; it stays where it is.
    """
    path = spool.refuse(str(error))
    _log.warning("a spooled batch is refused and put by in %s: %s", path, error)
