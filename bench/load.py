"""Clients that send as fast as answers come, in processes of their own, on the same cores as the server.

Requests are built before the clock starts: what is measured is the server, and what a client must do to send bytes.
"""

import itertools
import multiprocessing
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime

import grpc

from bench.usage_stack import EVENT_TYPE
from meterscope.usage.v1 import event_service_pb2

INGEST = "/meterscope.usage.v1.EventService/IngestEvents"


@dataclass(frozen=True)
class Load:
    """What one client process sends. What other methods than IngestEvents answer is not looked at.

    `connections`: the callers are spread over so many, as separate clients would have them. Several server processes on
    one port share connections, not calls: with one of them, one process does everything. `rate`: calls/s that all of them
    together send at most, each call at its time (0: as fast as answers come); latency counts from that time.
    """

    address: str
    requests: list[bytes]
    callers: int
    method: str = INGEST
    connections: int = 1
    rate: float = 0


@dataclass(frozen=True)
class Sent:
    """What came of it: seconds on the clock, calls, accepted events, and each call's seconds."""

    seconds: float
    calls: int
    accepted: int
    latencies: list[float]

    @property
    def calls_per_second(self) -> float:
        """Return the rate of calls."""
        return self.calls / self.seconds

    @property
    def events_per_second(self) -> float:
        """Return the rate of accepted events."""
        return self.accepted / self.seconds


def requests(run: str, calls: int, events: int, customers: int) -> list[bytes]:
    """Build `calls` requests of `events` events each, spread over the customers; no event occurs twice in any run."""
    now = int(datetime.now(UTC).timestamp())
    made = []
    for call in range(calls):
        request = event_service_pb2.IngestEventsRequest()
        for index in range(events):
            number = call * events + index
            event = request.events.add(
                id=f"{run}-{number}", source="bench/load", type=EVENT_TYPE, customer_key=f"c{number % customers}"
            )
            event.time.seconds = now - number % 3600
            event.quantities["bytes"].value = str(number % 100_000)
            event.attributes["path"] = f"/v1/things/{number % 50}"
            event.attributes["status"] = "200"
        made.append(request.SerializeToString())
    return made


def send(load: Load) -> Sent:
    """Send all requests from a process of its own and return what came of them."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_client, args=(theirs, load))
    process.start()
    theirs.close()
    sent = ours.recv()
    process.join()
    if isinstance(sent, Exception):
        raise sent
    assert isinstance(sent, Sent)  # noqa: S101 - what the client sends
    return sent


def _client(pipe: "multiprocessing.connection.Connection", load: Load) -> None:
    try:
        pipe.send(_run(load))
    except Exception as error:  # noqa: BLE001 - the other process raises it
        pipe.send(RuntimeError(f"{type(error).__name__}: {error}"))


def _run(load: Load) -> Sent:
    latencies: list[float] = []
    accepted: list[int] = []
    pending = enumerate(load.requests)
    lock = threading.Lock()
    is_ingest = load.method == INGEST
    decode = event_service_pb2.IngestEventsResponse.FromString if is_ingest else None
    with ExitStack() as stack:
        calls = []
        for _ in range(load.connections):
            # Channels to one address would share a connection.
            own = [("grpc.use_local_subchannel_pool", 1)]
            channel = stack.enter_context(grpc.insecure_channel(load.address, options=own))
            grpc.channel_ready_future(channel).result(10)
            calls.append(channel.unary_unary(load.method, response_deserializer=decode))
        connection = itertools.cycle(calls)

        def caller() -> None:
            with lock:
                call = next(connection)
            while True:
                with lock:
                    place, request = next(pending, (0, None))
                if request is None:
                    return
                began = time.perf_counter()
                if load.rate:
                    due = started + place / load.rate
                    if began < due:
                        time.sleep(due - began)
                    began = due
                response = call(request, timeout=60)
                latencies.append(time.perf_counter() - began)
                if is_ingest:
                    accepted.append(response.accepted)

        started = time.perf_counter()
        _together(caller, load.callers)
        return Sent(time.perf_counter() - started, len(latencies), sum(accepted), latencies)


def _together(work: Callable[[], None], threads: int) -> None:
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(work) for _ in range(threads)]:
            done.result()
