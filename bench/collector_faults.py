"""What a collector that is away costs callers, and what is lost where a backend or the collector is away.

**Latency.** One usage service sends all its telemetry to the real collector. At half of what it can take (single events,
a fixed rate), pairs of runs in turns: collector there, and collector killed, hung (SIGSTOP), slow (let run a twentieth of
the time), refusing (its memory limit far below what it holds). No call may fail; of the ratio of the p99s, the 95 % interval
of its mean (bootstrap over the pairs) is asked to include 1.1 or less. The servers' memory is looked at as well.

**Absence.** The same rate in windows, one behind another: with the collector, without it for `--gone` seconds, and with it
again; of each the p99, and the servers' memory.

**Loss.** A sender's spans (marked `meterscope.keep`), log lines and samples go to the collector, each only counted once the
collector has taken it. Jaeger, Prometheus and Loki are killed for `--away` seconds; towards the end the collector, its
queues full of that, is killed (SIGKILL) and started again; then the backends come back. What the collector took is then
counted in each of them. Spans that wait for a sampling decision are the exception that is known: they are sent and
counted too. bench/results/collector_faults.json.
"""

import argparse
import os
import random
import signal
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil

from bench import fault_sender, load, machine, real_stack
from bench.usage_stack import UsageStack, running

CALLERS = 64
_RESAMPLES = 10_000
_RUN_PART = 0.05
# The limiter refuses from 80 MiB below this on (spike_limit_mib): more than the last MiB is held at rest.
_TOO_LITTLE_MIB = "81"


def main() -> None:
    """Measure, print, save."""
    arguments = _arguments()
    with real_stack.running() as (stack, ports):
        result: dict[str, Any] = {}
        if arguments.pairs:
            with running(arguments.customers, environment=real_stack.endpoint(ports)) as usage:
                result["latency"] = measure_latency(stack, usage, arguments)
                if arguments.gone:
                    rate = result["latency"]["calls_per_second"]
                    result["absence"] = measure_absence(stack, usage, rate, arguments)
        if arguments.away:
            result["loss"] = measure_loss(stack, ports, arguments.away)
    path = machine.save(arguments.save, {"arguments": vars(arguments), **result})
    print(f"saved to {path.relative_to(path.parents[2])}")


def measure_latency(stack: Any, usage: UsageStack, arguments: argparse.Namespace) -> dict[str, Any]:
    """Find out what it can take, then run pairs at half of it for each fault."""
    customers = arguments.customers
    full = load.send(load.Load(usage.address, load.requests("warm", 8_000, 1, customers), CALLERS))
    rate = full.calls_per_second / 2
    print(f"it takes {full.calls_per_second:,.0f} calls/s; sent are {rate:,.0f}", flush=True)
    found: dict[str, Any] = {"calls_per_second": rate}
    faults = {"killed": _killed, "hung": _hung, "slow": _slow, "refusing": _refusing}
    for name, fault in faults.items():
        p99s: dict[str, list[float]] = {"there": [], "fault": []}
        memory = []
        for _pair in range(arguments.pairs):
            p99s["there"].append(_p99(usage, rate, arguments))
            with fault(stack):
                p99s["fault"].append(_p99(usage, rate, arguments))
            memory.append(_megabytes(usage))
        ratios = [ill / well for ill, well in zip(p99s["fault"], p99s["there"], strict=True)]
        low, high = _interval(ratios)
        found[name] = {
            "p99_seconds": p99s,
            "ratios": ratios,
            "interval_95": [low, high],
            "server_megabytes": memory,
        }
        print(
            f"{name}: p99 {statistics.median(p99s['there']) * 1e3:.1f} ms there, "
            f"{statistics.median(p99s['fault']) * 1e3:.1f} ms {name}; ratio {statistics.mean(ratios):.2f}, 95 % interval "
            f"{low:.2f} to {high:.2f}; no call failed; the server holds {memory[0]:.0f} to {memory[-1]:.0f} MB",
            flush=True,
        )
    return found


def measure_absence(stack: Any, usage: UsageStack, rate: float, arguments: argparse.Namespace) -> dict[str, Any]:
    """Windows with the collector, without it, and with it again."""
    found: dict[str, Any] = {}

    def windows(name: str, seconds: float) -> None:
        p99s, memory = [], []
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            p99s.append(_p99(usage, rate, arguments))
            memory.append(_megabytes(usage))
        found[name] = {"p99_seconds": p99s, "server_megabytes": memory}
        print(
            f"{name}, {len(p99s)} windows: p99 {statistics.median(p99s) * 1e3:.1f} ms ({min(p99s) * 1e3:.1f} to "
            f"{max(p99s) * 1e3:.1f}); the server holds {min(memory):.0f} to {max(memory):.0f} MB; no call failed",
            flush=True,
        )

    windows("there", arguments.gone / 6)
    stack.kill(real_stack.COLLECTOR)
    windows(f"gone for {arguments.gone:.0f} s", arguments.gone)
    stack.start(real_stack.COLLECTOR)
    windows("back", arguments.gone / 6)
    stack.wait_until_healthy()
    return found


def measure_loss(stack: Any, ports: Any, away: float) -> dict[str, Any]:
    """Send through the faults, wait until all is back and drained, and count on both sides."""
    sender = fault_sender.Sender(ports.addresses["OTLP gRPC"])
    stopping = threading.Event()
    sending = threading.Thread(target=sender.run, args=(stopping,))
    sending.start()
    time.sleep(10)
    for name in real_stack.BACKENDS:
        stack.kill(name)
    print(f"Jaeger, Prometheus and Loki are away for {away:.0f} s", flush=True)
    time.sleep(away * 0.9)
    stack.kill(real_stack.COLLECTOR)
    queued = sum(path.stat().st_size for path in (stack.folder / "otelcol" / "queues").glob("*"))
    stack.start(real_stack.COLLECTOR)
    time.sleep(away * 0.1)
    for name in real_stack.BACKENDS:
        stack.start(name)
    stack.wait_until_healthy()
    time.sleep(10)
    stopping.set()
    sending.join()
    sender.close()
    counted = sender.counted(ports, seconds=180)
    taken = sender.taken()
    for name, number in taken.items():
        print(f"{name}: the collector took {number:,}, {counted[name]:,} arrived")
    print(f"its queues held {queued / 2**20:.1f} MB when it was killed; refused or unanswered: {sender.refused}")
    return {"taken": taken, "arrived": counted, "refused": sender.refused, "queued_bytes_at_kill": queued}


def _p99(usage: UsageStack, rate: float, arguments: argparse.Namespace) -> float:
    calls = int(rate * arguments.seconds)
    requests = load.requests(f"p-{time.time_ns()}", calls, 1, arguments.customers)
    sent = load.send(load.Load(usage.address, requests, CALLERS, rate=rate))
    if sent.accepted != calls:
        raise RuntimeError(f"{sent.accepted} of {calls} calls were accepted")
    return sorted(sent.latencies)[calls * 99 // 100]


@contextmanager
def _killed(stack: Any) -> Iterator[None]:
    stack.kill(real_stack.COLLECTOR)
    yield
    _bring_back(stack)


@contextmanager
def _hung(stack: Any) -> Iterator[None]:
    pid = stack.pids[real_stack.COLLECTOR]
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
    time.sleep(5)


@contextmanager
def _slow(stack: Any) -> Iterator[None]:
    pid, done = stack.pids[real_stack.COLLECTOR], threading.Event()

    def brake() -> None:
        while not done.is_set():
            os.kill(pid, signal.SIGSTOP)
            done.wait(1 - _RUN_PART)
            os.kill(pid, signal.SIGCONT)
            done.wait(_RUN_PART)

    thread = threading.Thread(target=brake)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        os.kill(pid, signal.SIGCONT)
    time.sleep(5)


@contextmanager
def _refusing(stack: Any) -> Iterator[None]:
    """Let it answer each sender that it is out of memory."""
    stack.kill(real_stack.COLLECTOR)
    os.environ["COLLECTOR_MEMORY_MIB"] = _TOO_LITTLE_MIB
    try:
        stack.start(real_stack.COLLECTOR)
        stack.wait_until_healthy()
        yield
    finally:
        del os.environ["COLLECTOR_MEMORY_MIB"]
    stack.kill(real_stack.COLLECTOR)
    _bring_back(stack)


def _bring_back(stack: Any) -> None:
    stack.start(real_stack.COLLECTOR)
    stack.wait_until_healthy()
    # Senders try again after waits that grow.
    time.sleep(5)


def _interval(ratios: list[float]) -> tuple[float, float]:
    """Return the 95 % interval of the mean, by resampling the pairs."""
    chance = random.Random(20251101)
    means = sorted(statistics.mean(chance.choices(ratios, k=len(ratios))) for _ in range(_RESAMPLES))
    return means[int(0.025 * _RESAMPLES)], means[int(0.975 * _RESAMPLES)]


def _megabytes(usage: UsageStack) -> float:
    return float(max(psutil.Process(each.pid).memory_info().rss for each in usage.processes.values()) / 2**20)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.collector_faults", description=__doc__)
    parser.add_argument("--pairs", type=int, default=10, help="of runs for each fault; 0 leaves latency out")
    parser.add_argument("--seconds", type=float, default=4.0, help="of one run")
    parser.add_argument("--gone", type=float, default=180.0, help="seconds without the collector; 0 leaves that out")
    parser.add_argument("--away", type=float, default=180.0, help="seconds; 0 leaves loss out")
    parser.add_argument("--customers", type=int, default=1_000)
    parser.add_argument("--save", default="collector_faults", help="name of the result")
    return parser.parse_args()


if __name__ == "__main__":
    main()
