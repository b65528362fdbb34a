"""What telemetry costs: all signals at 100 % through the real collector and its backends, beside none.

Two usage services side by side, alike but for OTEL_EXPORTER_OTLP_ENDPOINT; only one is sent to at a time, in turns. Three
kinds of work: batches of 1,000 (aim 0.95), single events from 64 callers (0.85), limit checks from 16 callers (0.6). Two
ratios a pair: of the rates, where collector, Prometheus, Jaeger and Loki take their part of the same cores, and of the
processor time that the service and its PostgreSQL spend on the work, which is what telemetry costs in our processes. What
the stack's programs spend is given apart. bench/results/telemetry_cost.json.
"""

import argparse
import statistics
import time
from collections.abc import Callable
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
    with real_stack.running() as (stack, ports):
        endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{ports.addresses['OTLP gRPC']}"}
        with (
            running(customers, servers=arguments.servers) as off,
            running(customers, servers=arguments.servers, environment=endpoint) as on,
        ):
            for side in (off, on):
                check_limit.use(side, customers)
            for name, work in works.items():
                found[name] = measure(name, work, off, on, lambda: stack.pids, arguments.pairs)
    path = machine.save(arguments.save, {"arguments": vars(arguments), **found})
    for name, work in works.items():
        rate, processor = found[name]["rate_ratio"], found[name]["processor_ratio"]
        print(
            f"{name}: rate {rate['median']:.2f} ({rate['least']:.2f} to {rate['greatest']:.2f}) of that without, "
            f"processor time {processor['median']:.2f} ({processor['least']:.2f} to {processor['greatest']:.2f}); "
            f"aim {work.aim}"
        )
    print(f"saved to {path.relative_to(path.parents[2])}")


def measure(
    name: str, work: Work, off: UsageStack, on: UsageStack, programs: Callable[[], dict[str, int]], pairs: int
) -> dict[str, Any]:
    """Pairs of (without, with), in turns."""
    for side in (off, on):
        load.send(_load(side, work, work.calls // 4))
    rates: dict[str, list[float]] = {"off": [], "on": []}
    costs: dict[str, list[float]] = {"off": [], "on": []}
    apart: dict[str, list[float]] = {}
    for pair in range(pairs):
        for key, side in (("off", off), ("on", on)):
            before, others = side.processor_seconds(), _each(programs())
            sent = load.send(_load(side, work, work.calls))
            time.sleep(_QUIET_SECONDS)
            rates[key].append(work.calls / sent.seconds)
            costs[key].append((side.processor_seconds() - before) / work.calls)
            if key == "on":
                for program, seconds in _each(programs()).items():
                    apart.setdefault(program, []).append((seconds - others[program]) / work.calls)
        print(
            f"{name}, pair {pair + 1}: {rates['off'][-1]:,.0f}/s without, {rates['on'][-1]:,.0f}/s with; "
            f"{costs['off'][-1] * 1e6:,.0f} and {costs['on'][-1] * 1e6:,.0f} µs of processor a call; apart: "
            + ", ".join(f"{program} {values[-1] * 1e6:,.0f}" for program, values in apart.items()),
            flush=True,
        )
    return {
        "calls_per_second": rates,
        "processor_seconds_per_call": costs,
        "stack_processor_seconds_per_call": apart,
        "stack_processor_seconds_per_call_median": {name: statistics.median(each) for name, each in apart.items()},
        "rate_ratio": machine.ratios(rates["on"], rates["off"]),
        "processor_ratio": machine.ratios(costs["off"], costs["on"]),
    }


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
