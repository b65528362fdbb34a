"""PostgreSQL killed and away for `--seconds`, while clients go on sending: what they are told, and what is left of it.

Each client sends a batch until it is acknowledged, waiting as long as the answer says (google.rpc.RetryInfo). Behind the
outage every acknowledged event must be in the totals once. Results go to bench/results/outage.json.
"""

import argparse
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import grpc
import psycopg
from google.rpc import error_details_pb2, status_pb2

from bench import load, machine
from bench.usage_stack import UsageStack, running
from meterscope.usage.v1 import event_service_pb2

BATCH = 100
CALLERS = 8
CUSTOMERS = 100
BEFORE_SECONDS = AFTER_SECONDS = 3.0


@dataclass
class Told:
    """What the clients saw."""

    acknowledged: int = 0
    last: float = 0.0
    refusals: Counter[str] = field(default_factory=Counter)
    hints: list[float] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


def main() -> None:
    """Measure, print, save."""
    arguments = _arguments()
    with running(CUSTOMERS) as stack:
        result = measure(stack, arguments.seconds)
    path = machine.save(arguments.save, {"arguments": vars(arguments), **result})
    print(f"saved to {path.relative_to(path.parents[2])}")


def measure(stack: UsageStack, seconds: float) -> dict[str, Any]:
    """Send, kill PostgreSQL, start it again, and compare."""
    told, stopping = Told(), threading.Event()
    senders = [threading.Thread(target=_send, args=(stack, number, told, stopping)) for number in range(CALLERS)]
    for sender in senders:
        sender.start()
    time.sleep(BEFORE_SECONDS)
    stack.postgres.kill()
    time.sleep(seconds)
    before = told.acknowledged
    stack.postgres.start()
    back = time.monotonic()
    while told.acknowledged == before:
        time.sleep(0.01)
    recovery = told.last - back
    time.sleep(AFTER_SECONDS)
    stopping.set()
    for sender in senders:
        sender.join()
    counted, waited = _counted(stack, told.acknowledged)
    print(
        f"away for {seconds:g} s: {sum(told.refusals.values())} refusals {dict(told.refusals)}, "
        f"{len(told.hints)} with a retry hint of {min(told.hints, default=0):g} to {max(told.hints, default=0):g} s; "
        f"the first batch {recovery:.2f} s behind its return; "
        f"{told.acknowledged:,} events acknowledged, {counted:,} counted {waited:.2f} s behind the last"
    )
    if counted != told.acknowledged:
        raise RuntimeError(f"{told.acknowledged} events were acknowledged, {counted} are counted")
    return {
        "refusals": dict(told.refusals),
        "retry_hints_seconds": {"least": min(told.hints, default=0), "greatest": max(told.hints, default=0)},
        "refusals_with_hint": len(told.hints),
        "first_batch_seconds": recovery,
        "acknowledged": told.acknowledged,
        "counted": counted,
    }


def _send(stack: UsageStack, number: int, told: Told, stopping: threading.Event) -> None:
    with grpc.insecure_channel(stack.address) as channel:
        call = channel.unary_unary(load.INGEST, response_deserializer=event_service_pb2.IngestEventsResponse.FromString)
        turn = 0
        while not stopping.is_set():
            turn += 1
            (request,) = load.requests(f"o{number}-{turn}", 1, BATCH, CUSTOMERS)
            while True:
                try:
                    response = call(request, timeout=30)
                except grpc.RpcError as error:
                    time.sleep(_note(told, error))
                    continue
                if response.accepted + response.duplicate != BATCH:
                    raise RuntimeError(str(response)[:500])
                with told.lock:
                    told.acknowledged += BATCH
                    told.last = time.monotonic()
                break


def _note(told: Told, error: grpc.RpcError) -> float:
    """Count a refusal; return how long to wait."""
    hint = error_details_pb2.RetryInfo()
    details = dict(error.trailing_metadata()).get("grpc-status-details-bin", b"")
    found = [each for each in status_pb2.Status.FromString(details).details if each.Unpack(hint)]
    with told.lock:
        told.refusals[error.code().name] += 1
        if found:
            told.hints.append(hint.retry_delay.seconds + hint.retry_delay.nanos / 1e9)
            return told.hints[-1]
    return 0.1


def _counted(stack: UsageStack, wanted: int) -> tuple[int, float]:
    """Return the events in the totals once they are as many as wanted, or after 10 s; and how long that took."""
    query = """
        SELECT coalesce(sum(t.count), 0) FROM usage.period_totals AS t
        JOIN usage.meters AS m ON m.number = t.meter WHERE m.id = 'requests'
    """
    started = time.perf_counter()
    with psycopg.connect(stack.postgres.url("usage"), autocommit=True) as conn:
        while True:
            (row,) = conn.execute(query).fetchall()
            seconds = time.perf_counter() - started
            if int(row[0]) == wanted or seconds > 10:  # noqa: PLR2004 - far beyond the rollup's lag
                return int(row[0]), seconds
            time.sleep(0.02)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.outage", description=__doc__)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--save", default="outage", help="name of the result")
    return parser.parse_args()


if __name__ == "__main__":
    main()
