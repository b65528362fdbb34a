"""StreamEvents beside IngestEvents: batches of 1,000 over streams against the same batches from eight callers.

One stream with eight requests under way, eight callers of IngestEvents, and the SDK's `Client.stream`, interleaved, each
over one connection: what counts is the ratio of each to the callers (aim 1: one stream is as fast as several callers).
`--window` and `--streams` change the streams; results go to bench/results/stream.json.
"""

import argparse
import multiprocessing
import statistics
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from datetime import UTC
from typing import Any

import grpc

from bench import load, machine
from bench.usage_stack import running
from meterscope import Client, Outcome
from meterscope.client import Event
from meterscope.usage.v1 import event_service_pb2

STREAM = "/meterscope.usage.v1.EventService/StreamEvents"
BATCH = 1_000
CALLERS = 8


def main() -> None:
    """Measure, print, save."""
    arguments = _arguments()
    calls = arguments.events // BATCH
    rates: dict[str, list[float]] = {"callers": [], "streams": [], "sdk": []}
    with running(arguments.customers, servers=arguments.servers) as stack:
        warm = load.requests("warm", 100, BATCH, arguments.customers)
        load.send(load.Load(stack.address, warm, CALLERS))
        for pair in range(arguments.pairs):
            made = [
                load.requests(f"{name}{pair}-{time.time_ns()}", calls, BATCH, arguments.customers)
                for name in ("c", "s")
            ]
            sent = load.send(load.Load(stack.address, made[0], CALLERS))
            rates["callers"].append(_checked(sent.accepted, calls) / sent.seconds)
            accepted, seconds = _apart(_stream, stack.address, made[1], arguments.streams, arguments.window)
            rates["streams"].append(_checked(accepted, calls) / seconds)
            accepted, seconds = _apart(_sdk, stack.address, f"k{pair}-{time.time_ns()}", calls, arguments.customers)
            rates["sdk"].append(_checked(accepted, calls) / seconds)
            print(
                f"pair {pair + 1}: " + ", ".join(f"{name} {found[-1]:,.0f} events/s" for name, found in rates.items()),
                flush=True,
            )
    ratios = {name: machine.ratios(rates[name], rates["callers"]) for name in ("streams", "sdk")}
    path = machine.save(arguments.save, {"arguments": vars(arguments), "events_per_second": rates, "ratio": ratios})
    for name, ratio in ratios.items():
        print(f"{name}: {statistics.median(rates[name]):,.0f} events/s, of eight callers {machine.shown(ratio)}")
    print(f"saved to {path.relative_to(path.parents[2])}")


def _checked(accepted: int, calls: int) -> int:
    if accepted != calls * BATCH:
        raise RuntimeError(f"{accepted} of {calls * BATCH} events accepted")
    return accepted


def _apart(work: Any, *arguments: Any) -> tuple[int, float]:
    """Run a client in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        found: tuple[int, float] = pool.submit(work, *arguments).result()
    return found


def _stream(address: str, requests: list[bytes], streams: int, window: int) -> tuple[int, float]:
    """Send over streams; return how many events were accepted, and the seconds.

    The bytes of IngestEventsRequest are those of StreamEventsRequest: the fields have the same numbers.
    """
    with grpc.insecure_channel(address) as channel, ThreadPoolExecutor(streams) as pool:
        grpc.channel_ready_future(channel).result(10)
        started = time.perf_counter()
        parts = [requests[place::streams] for place in range(streams)]
        accepted = sum(pool.map(lambda part: _one(channel, part, window), parts))
        return accepted, time.perf_counter() - started


def _one(channel: grpc.Channel, requests: list[bytes], window: int) -> int:
    room = threading.Semaphore(window)

    def bounded() -> Iterator[bytes]:
        for request in requests:
            room.acquire()
            yield request

    accepted = 0
    decode = event_service_pb2.StreamEventsResponse.FromString
    for answer in channel.stream_stream(STREAM, response_deserializer=decode)(bounded()):
        accepted += answer.accepted
        room.release()
    return accepted


def _sdk(address: str, run: str, calls: int, customers: int) -> tuple[int, float]:
    """Send by the SDK, which makes and encodes its events meanwhile, on the same cores."""
    requests = load.requests(run, calls, BATCH, customers)
    events = (
        _event(message)
        for data in requests
        for message in event_service_pb2.IngestEventsRequest.FromString(data).events
    )
    with Client(address, max_batch_events=BATCH) as client:
        started = time.perf_counter()
        accepted = sum(result.outcome is Outcome.ACCEPTED for result in client.stream(events))
        return accepted, time.perf_counter() - started


def _event(message: event_service_pb2.Event) -> Event:
    return Event(
        type=message.type,
        customer_key=message.customer_key,
        source=message.source,
        id=message.id,
        time=message.time.ToDatetime(UTC),
        quantities={name: quantity.value for name, quantity in message.quantities.items()},
        attributes=dict(message.attributes),
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.stream", description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--events", type=int, default=200_000, help="events of a run")
    parser.add_argument("--customers", type=int, default=1_000)
    parser.add_argument("--servers", type=int, default=1, help="server processes on one port")
    parser.add_argument("--streams", type=int, default=1, help="streams at a time, over one connection")
    parser.add_argument("--window", type=int, default=8, help="requests of a stream that are under way at a time")
    parser.add_argument("--save", default="stream", help="name of the result")
    return parser.parse_args()


if __name__ == "__main__":
    main()
