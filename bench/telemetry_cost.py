"""What telemetry costs: all signals at 100 % through the real collector and its backends, beside none.

Two usage services side by side, alike but for OTEL_EXPORTER_OTLP_ENDPOINT; only one is sent to at a time, in turns. Three
kinds of work: batches of 1,000 (aim 0.95), single events from 64 callers (0.85), limit checks from 16 callers (0.6). Each
round has three runs: with telemetry; without, while another process sends the collector as many spans as the service had
sent (span_replay.py); and without. The ratio of the rates of the first two is what telemetry costs in our processes: the
collector, Prometheus, Jaeger and Loki, which are on the same cores, have the same to do in both. The ratio to the third
has their work in it, which is also given apart; so is the processor time that the service and its PostgreSQL spend on a
call. bench/results/telemetry_cost.json.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from bench import check_limit, load, machine, real_stack
from bench.usage_stack import UsageStack, processor_seconds, running

# Metrics leave every 15 s, spans and log lines every 5 s at most: what belongs to a run must not fall into the next.
_QUIET_SECONDS = 2.0


@dataclass(frozen=True)
class Work:
    """One kind of work: what one call asks for, how many calls a run makes, and who makes them."""

    requests: Callable[[int], list[bytes]]
    method: str
    calls: int
    callers: int
    connections: int
    aim: float


def main() -> None:
    """Measure, print, save."""
    arguments = _arguments()
    customers = arguments.customers
    works = {
        "batches of 1,000": Work(
            lambda calls: load.requests(f"b-{time.time_ns()}", calls, 1_000, customers), load.INGEST, 150, 8, 8, 0.95
        ),
        "single events": Work(
            lambda calls: load.requests(f"s-{time.time_ns()}", calls, 1, customers), load.INGEST, 8_000, 64, 1, 0.85
        ),
        "limit checks": Work(
            lambda calls: check_limit.requests(calls, customers), check_limit.METHOD, 8_000, 16, 1, 0.6
        ),
    }
    found: dict[str, Any] = {}
    with (
        real_stack.running() as (stack, ports),
        running(customers, servers=arguments.servers) as off,
        running(customers, servers=arguments.servers, environment=real_stack.endpoint(ports)) as on,
    ):
        for side in (off, on):
            check_limit.use(side, customers)
        for name, work in works.items():
            found[name] = measure(
                name, work, off, on, lambda: stack.pids, arguments.pairs, collector=ports.addresses["OTLP gRPC"]
            )
    path = machine.save(arguments.save, {"arguments": vars(arguments), **found})
    for name, work in works.items():
        rate, whole, processor = (
            machine.shown(found[name][key]) for key in ("rate_ratio", "rate_ratio_with_collector", "processor_ratio")
        )
        print(
            f"{name}: rate {rate} of that without, the collector's work apart; {whole} with it; processor time {processor}; "
            f"aim {work.aim}"
        )
    print(f"saved to {path.relative_to(path.parents[2])}")


def measure(
    name: str,
    work: Work,
    off: UsageStack,
    on: UsageStack,
    programs: Callable[[], dict[str, int]],
    pairs: int,
    *,
    collector: str,
) -> dict[str, Any]:
    """Rounds of (with, without beside a collector that is fed, without), in turns."""
    for side in (off, on):
        load.send(_load(side, work, work.calls // 4))
    rates: dict[str, list[float]] = {"on": [], "fed": [], "off": []}
    costs: dict[str, list[float]] = {"on": [], "fed": [], "off": []}
    apart: dict[str, list[float]] = {}
    for pair in range(pairs):
        for key, side in (("on", on), ("fed", off), ("off", off)):
            requests = _load(side, work, work.calls)
            with _fed(collector, rates["on"][-1], work.calls) if key == "fed" else nullcontext():
                before, others = side.processor_seconds(), _each(programs())
                sent = load.send(requests)
            time.sleep(_QUIET_SECONDS)
            rates[key].append(work.calls / sent.seconds)
            costs[key].append((side.processor_seconds() - before) / work.calls)
            if key == "on":
                for program, seconds in _each(programs()).items():
                    apart.setdefault(program, []).append((seconds - others[program]) / work.calls)
        print(
            f"{name}, round {pair + 1}: {rates['on'][-1]:,.0f}/s with, {rates['fed'][-1]:,.0f}/s without beside a collector "
            f"that is fed, {rates['off'][-1]:,.0f}/s without; "
            + ", ".join(f"{costs[key][-1] * 1e6:,.0f}" for key in costs)
            + " µs of processor a call; apart: "
            + ", ".join(f"{program} {values[-1] * 1e6:,.0f}" for program, values in apart.items()),
            flush=True,
        )
    return {
        "calls_per_second": rates,
        "processor_seconds_per_call": costs,
        "stack_processor_seconds_per_call": apart,
        "stack_processor_seconds_per_call_median": {name: statistics.median(each) for name, each in apart.items()},
        "rate_ratio": machine.ratios(rates["on"], rates["fed"]),
        "rate_ratio_with_collector": machine.ratios(rates["on"], rates["off"]),
        "processor_ratio": machine.ratios(costs["fed"], costs["on"]),
    }


@contextmanager
def _fed(collector: str, spans_a_second: float, spans: int) -> Iterator[None]:
    """Send the collector spans, one for each call, from a process of its own."""
    command = [sys.executable, "-m", "bench.span_replay", collector, str(spans_a_second), str(spans / spans_a_second)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdin is not None  # noqa: S101 - a pipe was asked for
        assert process.stdout is not None  # noqa: S101 - likewise
        process.stdout.readline()
        process.stdin.write("go\n")
        process.stdin.flush()
        yield
    finally:
        process.kill()
        process.wait()


def _load(side: UsageStack, work: Work, calls: int) -> load.Load:
    return load.Load(side.address, work.requests(calls), work.callers, work.method, work.connections)


def _each(programs: dict[str, int]) -> dict[str, float]:
    return {name: processor_seconds([pid]) for name, pid in programs.items()}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.telemetry_cost", description=__doc__)
    parser.add_argument("--pairs", type=int, default=6)
    parser.add_argument("--customers", type=int, default=1_000)
    parser.add_argument("--servers", type=int, default=1)
    parser.add_argument("--save", default="telemetry_cost", help="name of the result")
    return parser.parse_args()


if __name__ == "__main__":
    main()
