"""Durable exactly-once ingest over gRPC, beside PostgreSQL's own limit and beside a no-op call.

Batches of 1,000 against keys and COPY alone (aim 0.4, least 0.3); single events from 64 callers against a no-op call of
the same shape, server settings and interceptors (aim 0.5). Runs are interleaved; the median of the pairwise ratios
counts. Batches come over a connection for each caller, as eight clients have them. `--pairs`, `--events` and `--customers`
change the size, `--rich` adds meters that look at attributes, `--telemetry` sends all signals of the service and of the
no-op through the real collector (`make stack-build`); results go to bench/results/ingest.json.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from bench import load, machine, postgres_limit, real_stack
from bench.usage_stack import UsageStack, free_port, running, wait_until_serving
from services.kit.embedded import EmbeddedPostgres

SCHEMA = "usage"
BATCH = 1_000
BATCH_CALLERS = 8
SINGLE_CALLERS = 64


def main() -> None:
    """Measure, print, save."""
    arguments = _arguments()
    with ExitStack() as within:
        environment: dict[str, str] = {}
        if arguments.telemetry:
            _, ports = within.enter_context(real_stack.running())
            environment = real_stack.endpoint(ports)
        usage = running(arguments.customers, servers=arguments.servers, rich=arguments.rich, environment=environment)
        stack = within.enter_context(usage)
        batch = measure_batches(stack, arguments)
        single = measure_singles(stack, arguments, environment)
    result = {"arguments": vars(arguments), "batches": batch, "single_events": single}
    path = machine.save(arguments.save, result)
    _show(batch, single)
    print(f"saved to {path.relative_to(path.parents[2])}")


def measure_batches(stack: UsageStack, arguments: argparse.Namespace) -> dict[str, Any]:
    """Pairs of (service, limit), batches of 1,000 from eight callers."""
    calls = arguments.events // BATCH
    warm = load.requests("warm", 100, BATCH, arguments.customers)
    load.send(load.Load(stack.address, warm, BATCH_CALLERS, connections=BATCH_CALLERS))
    superuser = stack.postgres.url("usage")
    postgres_limit.create(superuser, SCHEMA)
    work = postgres_limit.batches(superuser, SCHEMA, 100)
    work_all = work + _fresh(superuser, len(work), calls)
    connections, calibration = postgres_limit.best_connections(superuser, work_all)
    print(f"PostgreSQL alone is fastest with {connections} connections", flush=True)
    ours, limits, lags = [], [], []
    for pair in range(arguments.pairs):
        requests = load.requests(f"b{pair}-{time.time_ns()}", calls, BATCH, arguments.customers)
        sent = load.send(load.Load(stack.address, requests, BATCH_CALLERS, connections=BATCH_CALLERS))
        if sent.accepted != calls * BATCH:
            raise RuntimeError(f"{sent.accepted} of {calls * BATCH} events accepted")
        ours.append(sent.events_per_second)
        lags.append(_settle(stack))
        limits.append(postgres_limit.run(superuser, work_all, connections))
        print(
            f"pair {pair + 1}: service {ours[-1]:,.0f} events/s, limit {limits[-1]:,.0f} rows/s, "
            f"rolled up {lags[-1]:.2f} s behind the last answer, ratio {ours[-1] / limits[-1]:.3f}",
            flush=True,
        )
    return {
        "events_per_second": ours,
        "limit_rows_per_second": limits,
        "limit_connections": connections,
        "limit_calibration": calibration,
        "rollup_seconds_behind": lags,
        "ratio": machine.ratios(ours, limits),
    }


def measure_singles(stack: UsageStack, arguments: argparse.Namespace, environment: Mapping[str, str]) -> dict[str, Any]:
    """Pairs of (service, no-op), single events from 64 callers."""
    address = f"127.0.0.1:{free_port()}"
    environ = {**os.environ, "NOOP_ADDRESS": address, "LOG_LEVEL": "ERROR", **environment}
    noop = subprocess.Popen([sys.executable, "-m", "bench.noop"], env=environ)
    try:
        wait_until_serving(address)
        ours, limits, p50, p99 = [], [], [], []
        for pair in range(arguments.pairs):
            requests = load.requests(f"s{pair}-{time.time_ns()}", arguments.singles, 1, arguments.customers)
            sent = load.send(load.Load(stack.address, requests, SINGLE_CALLERS))
            idle = load.send(load.Load(address, requests, SINGLE_CALLERS))
            ours.append(sent.calls_per_second)
            limits.append(idle.calls_per_second)
            ordered = sorted(sent.latencies)
            p50.append(statistics.median(ordered))
            p99.append(ordered[len(ordered) * 99 // 100])
            print(
                f"pair {pair + 1}: service {ours[-1]:,.0f} calls/s (p50 {p50[-1] * 1e3:.1f} ms, p99 {p99[-1] * 1e3:.1f} ms), "
                f"no-op {limits[-1]:,.0f} calls/s, ratio {ours[-1] / limits[-1]:.3f}",
                flush=True,
            )
    finally:
        noop.terminate()
        noop.wait()
    return {
        "calls_per_second": ours,
        "noop_calls_per_second": limits,
        "p50_seconds": p50,
        "p99_seconds": p99,
        "ratio": machine.ratios(ours, limits),
    }


def _fresh(url: str, made: int, wanted: int) -> list[postgres_limit.Batch]:
    """More transactions, until there are `wanted`."""
    more: list[postgres_limit.Batch] = []
    while made + len(more) < wanted:
        more += postgres_limit.batches(url, SCHEMA, min(100, wanted - made - len(more)))
    return more


def _settle(stack: UsageStack) -> float:
    """Wait until the rollup has counted all that was acknowledged; return how many seconds that took."""
    started = time.perf_counter()
    while not _rolled_up(stack.postgres):
        time.sleep(0.02)
    return time.perf_counter() - started


def _rolled_up(postgres: EmbeddedPostgres) -> bool:
    import psycopg

    query = "SELECT NOT EXISTS (SELECT 1 FROM usage.events WHERE tx >= (SELECT min(last) FROM usage.rollups))"
    with psycopg.connect(postgres.url("usage"), autocommit=True) as conn:
        row = conn.execute(query).fetchone()
    return bool(row and row[0])


def _show(batch: dict[str, Any], single: dict[str, Any]) -> None:
    for name, part, unit in (
        ("batches of 1,000", batch, "events_per_second"),
        ("single events", single, "calls_per_second"),
    ):
        print(f"{name}: {statistics.median(part[unit]):,.0f}/s, ratio to the limit {machine.shown(part['ratio'])}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.ingest", description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--events", type=int, default=200_000, help="events of a batch run")
    parser.add_argument("--singles", type=int, default=10_000, help="calls of a single-event run")
    parser.add_argument("--customers", type=int, default=1_000)
    parser.add_argument("--servers", type=int, default=2, help="server processes on one port")
    parser.add_argument("--rich", action="store_true", help="with three meters more that look at attributes")
    parser.add_argument("--telemetry", action="store_true", help="with all signals, through the real collector")
    parser.add_argument("--save", default="ingest", help="name of the result")
    return parser.parse_args()


if __name__ == "__main__":
    main()
