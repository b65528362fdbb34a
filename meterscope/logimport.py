"""Imports access logs as usage events: one request, one event, for the client that made it."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Final, NamedTuple

import grpc

from meterscope import accesslog
from meterscope.client import Client, Event, Outcome, Result
from meterscope.usage.v1 import meter_service_pb2 as pb
from meterscope.usage.v1 import meter_service_pb2_grpc

EVENT_TYPE: Final = "http.request"
MOST_PATH_CHARACTERS: Final = 256
MOST_PROBLEMS: Final = 1_000


# What can be counted of a request: how many there were, and what was sent back.
METERS: Final = (
    pb.Meter(id="requests", event_type=EVENT_TYPE, aggregation=pb.AGGREGATION_COUNT, unit="requests"),
    pb.Meter(id="bytes", event_type=EVENT_TYPE, aggregation=pb.AGGREGATION_SUM, quantity="bytes", unit="By"),
)


class Source(NamedTuple):
    """A log to import.

    Attributes:
        path: the file, plain or gzipped.
        shift: added to each time.
        limit: only so many lines from its beginning; all when None.
    """

    path: Path
    shift: timedelta = timedelta(0)
    limit: int | None = None

    @property
    def name(self) -> str:
        """The file's name, without `.gz`: with the line's number it identifies an event."""
        return self.path.name.removesuffix(".gz")


@dataclass(frozen=True, slots=True)
class Problem:
    """A line that did not go in: its file, its number from 1, and why."""

    file: str
    line: int
    reason: str


@dataclass
class Report:
    """What became of an import.

    Attributes:
        lines: lines read.
        bytes: the sum of the sizes of the requests that were sent.
        outcomes: events by outcome.
        customers: events per customer key and outcome.
        problems: the first 1,000 lines that did not go in.
        malformed: how many lines could not be read.
        seconds: how long it took, until the last acknowledgement.
    """

    lines: int = 0
    bytes: int = 0
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    customers: dict[Outcome, Counter[str]] = field(default_factory=lambda: {outcome: Counter() for outcome in Outcome})
    problems: list[Problem] = field(default_factory=list)
    malformed: int = 0
    seconds: float = 0.0

    @property
    def events(self) -> int:
        """How many events were judged."""
        return self.outcomes.total()

    @property
    def events_per_second(self) -> float:
        """How many events were judged a second."""
        return self.events / self.seconds if self.seconds else 0.0


def create_meters(channel: grpc.Channel) -> None:
    """Create the meters `requests` and `bytes`, unless they are there. ALREADY_EXISTS if they are defined otherwise."""
    stub = meter_service_pb2_grpc.MeterServiceStub(channel)
    for meter in METERS:
        stub.CreateMeter(pb.CreateMeterRequest(meter=meter))


def run(
    address: str,
    sources: Sequence[Source],
    *,
    source: str,
    customer_key: str | None = None,
    token: str | None = None,
    batch: int = 1_000,
    on_progress: Callable[[int], None] = lambda _lines: None,
) -> Report:
    """Send the logs to usage at `address`.

    An event's id is `<file>:<line number>`, never made from the line's content: a log may repeat a line exactly.

    Args:
        address: usage's host:port.
        sources: the logs.
        source: the events' source.
        customer_key: the customer of all lines; the client's address of each line when None.
        token: the service token, if there is one.
        batch: events a batch.
        on_progress: told how many more lines are done.

    Raises:
        ValueError: two logs have the same name, and with it the same events' ids.
        Undelivered: the server did not take some events; running the import again is safe.
    """
    names = [log.name for log in sources]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise ValueError(f"two files are named {twice[0]}: their events would have the same ids; import one at a time")
    report = Report()

    def settle(results: Sequence[Result]) -> None:
        for result in results:
            report.outcomes[result.outcome] += 1
            report.customers[result.outcome][result.event.customer_key] += 1
            if result.outcome in {Outcome.REJECTED, Outcome.CONFLICT}:
                name, _, number = result.event.id.rpartition(":")
                _note(report, Problem(name, int(number), f"{result.outcome.name}: {result.message}"))
        on_progress(len(results))

    started = time.perf_counter()
    with Client(address, source=source, token=token, max_batch_events=batch, on_results=settle) as client:
        for log in sources:
            for event in _events(log, customer_key, report, on_progress):
                client.enqueue(event)
        client.flush()
    report.seconds = time.perf_counter() - started
    return report


def _events(
    log: Source, customer_key: str | None, report: Report, on_progress: Callable[[int], None]
) -> Iterator[Event]:
    for number, request, error in accesslog.read(log.path, limit=log.limit):
        report.lines += 1
        if request is None:
            report.malformed += 1
            _note(report, Problem(log.name, number, error))
            on_progress(1)
            continue
        report.bytes += request.size
        yield Event(
            type=EVENT_TYPE,
            id=f"{log.name}:{number}",
            customer_key=customer_key or request.client,
            time=request.time + log.shift,
            quantities={"bytes": request.size},
            attributes={
                "method": request.method,
                "path": request.path[:MOST_PATH_CHARACTERS],
                "status": str(request.status),
            },
        )


def _note(report: Report, problem: Problem) -> None:
    if len(report.problems) < MOST_PROBLEMS:
        report.problems.append(problem)
