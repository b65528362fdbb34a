"""CheckLimit beside a no-op call of the same shape, server settings and interceptors (aim: half of its rate).

From 16 and from 64 callers, over customers that have usage and a limit, warm: each server has met each customer. Runs are
interleaved; the median of the pairwise ratios counts, and what a check costs more than the no-op, in µs of this machine.
`--pairs`, `--calls` and `--customers` change the size; results go to bench/results/check_limit.json.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from typing import Any

import grpc

from bench import load, machine
from bench.usage_stack import UsageStack, free_port, running, wait_until_serving
from meterscope.usage.v1 import limit_service_pb2 as pb
from meterscope.usage.v1 import limit_service_pb2_grpc

METHOD = "/meterscope.usage.v1.LimitService/CheckLimit"
CALLERS = (16, 64)


def main() -> None:
    """Measure, print, save."""
    arguments = _arguments()
    with running(arguments.customers, servers=arguments.servers) as stack:
        use(stack, arguments.customers)
        address = f"127.0.0.1:{free_port()}"
        environ = {**os.environ, "NOOP_ADDRESS": address, "LOG_LEVEL": "ERROR"}
        noops = [subprocess.Popen([sys.executable, "-m", "bench.noop"], env=environ) for _ in range(arguments.servers)]
        try:
            wait_until_serving(address)
            result = {f"{callers}_callers": measure(stack, address, callers, arguments) for callers in CALLERS}
        finally:
            for noop in noops:
                noop.terminate()
            for noop in noops:
                noop.wait()
    path = machine.save(arguments.save, {"arguments": vars(arguments), **result})
    for callers in CALLERS:
        _show(callers, result[f"{callers}_callers"])
    print(f"saved to {path.relative_to(path.parents[2])}")


def measure(stack: UsageStack, noop: str, callers: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Pairs of (service, no-op)."""
    made = requests(arguments.calls, arguments.customers)
    # Each server process asks the database for a customer that it has not met.
    load.send(load.Load(stack.address, made[: 4 * arguments.customers], callers, METHOD))
    ours, limits, p50, p99, extra = [], [], [], [], []
    for pair in range(arguments.pairs):
        sent = load.send(load.Load(stack.address, made, callers, METHOD))
        idle = load.send(load.Load(noop, made, callers, METHOD))
        ours.append(sent.calls_per_second)
        limits.append(idle.calls_per_second)
        ordered = sorted(sent.latencies)
        p50.append(statistics.median(ordered))
        p99.append(ordered[len(ordered) * 99 // 100])
        # Client and servers share the cores: what a call takes of the wall clock is what it costs.
        extra.append((1 / ours[-1] - 1 / limits[-1]) * 1e6)
        print(
            f"{callers} callers, pair {pair + 1}: checks {ours[-1]:,.0f}/s (p50 {p50[-1] * 1e3:.1f} ms, "
            f"p99 {p99[-1] * 1e3:.1f} ms), no-op {limits[-1]:,.0f}/s, ratio {ours[-1] / limits[-1]:.3f}, "
            f"own {extra[-1]:.0f} µs",
            flush=True,
        )
    return {
        "calls_per_second": ours,
        "noop_calls_per_second": limits,
        "p50_seconds": p50,
        "p99_seconds": p99,
        "own_microseconds": extra,
        "ratio": machine.ratios(ours, limits),
    }


def requests(calls: int, customers: int) -> list[bytes]:
    """Build checks, customer by customer in turns."""
    return [
        pb.CheckLimitRequest(
            customer_id=f"cus_{number % customers:032x}", meter="requests", quantity={"value": "1"}
        ).SerializeToString()
        for number in range(calls)
    ]


def use(stack: UsageStack, customers: int) -> None:
    """Give every customer some usage, and wait until the live counters have it."""
    made = load.requests(f"use-{time.time_ns()}", max(1, customers // 1_000), min(customers, 1_000), customers)
    load.send(load.Load(stack.address, made, 1))
    deadline = time.monotonic() + 30
    with grpc.insecure_channel(stack.address) as channel:
        stub = limit_service_pb2_grpc.LimitServiceStub(channel)
        request = pb.CheckLimitRequest(customer_id=f"cus_{0:032x}", meter="requests")
        while True:
            answer = stub.CheckLimit(request)
            if answer.used.value != "0" and answer.answered_from == pb.ANSWERED_FROM_LIVE:
                return
            if time.monotonic() > deadline:
                raise TimeoutError("the live counters have no usage after 30 s")
            time.sleep(0.1)


def _show(callers: int, part: dict[str, Any]) -> None:
    print(
        f"{callers} callers: {statistics.median(part['calls_per_second']):,.0f} checks/s, ratio to the no-op "
        f"{machine.shown(part['ratio'])}, "
        f"own cost {statistics.median(part['own_microseconds']):.0f} µs"
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.check_limit", description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--calls", type=int, default=10_000, help="calls of a run")
    parser.add_argument("--customers", type=int, default=1_000)
    parser.add_argument("--servers", type=int, default=1, help="server processes on one port, of both kinds")
    parser.add_argument("--save", default="check_limit", help="name of the result")
    return parser.parse_args()


if __name__ == "__main__":
    main()
