"""Memory of the usage service's processes while events go through: flat, or not.

Sends `--events` events in batches of 1,000, and reads what each process holds (RSS) before, at ten marks on the way, and
behind it. What grows with the first events only is warm-up: caches, pools, statements. Results go to
bench/results/memory.json.
"""

import argparse
import time
from typing import Any

import psutil

from bench import load, machine
from bench.usage_stack import UsageStack, running

BATCH = 1_000
CALLERS = 8
MARKS = 10
_MEGABYTE = 1 << 20


def main() -> None:
    """Measure, print, save."""
    arguments = _arguments()
    with running(arguments.customers, servers=arguments.servers) as stack:
        result = measure(stack, arguments)
    path = machine.save(arguments.save, {"arguments": vars(arguments), **result})
    print(f"saved to {path.relative_to(path.parents[2])}")


def measure(stack: UsageStack, arguments: argparse.Namespace) -> dict[str, Any]:
    """Send in parts and look at the processes behind each."""
    samples = [{"events": 0, **_megabytes(stack)}]
    _show(samples[-1])
    part = max(arguments.events // MARKS // BATCH, 1)
    started = time.perf_counter()
    for mark in range(1, MARKS + 1):
        requests = load.requests(f"m{mark}-{time.time_ns()}", part, BATCH, arguments.customers)
        sent = load.send(load.Load(stack.address, requests, CALLERS, connections=CALLERS))
        if sent.accepted != part * BATCH:
            raise RuntimeError(f"{sent.accepted} of {part * BATCH} events accepted")
        samples.append({"events": mark * part * BATCH, **_megabytes(stack)})
        _show(samples[-1])
    seconds = time.perf_counter() - started
    # From the second mark on, when everything has been used once.
    warm, last = samples[2], samples[-1]
    million = (last["events"] - warm["events"]) / 1e6
    growth = {name: (last[name] - warm[name]) / million for name in stack.processes}
    for name, rate in growth.items():
        print(f"{name}: {rate:+.1f} MB a million events, once warm")
    return {"seconds": seconds, "megabytes": samples, "megabytes_per_million_events_once_warm": growth}


def _megabytes(stack: UsageStack) -> dict[str, float]:
    """Return each process's resident memory, with its children's."""
    found = {}
    for name, popen in stack.processes.items():
        process = psutil.Process(popen.pid)
        held = [process, *process.children(recursive=True)]
        found[name] = round(sum(each.memory_info().rss for each in held) / _MEGABYTE, 1)
    return found


def _show(sample: dict[str, Any]) -> None:
    held = ", ".join(f"{name} {value:.1f} MB" for name, value in sample.items() if name != "events")
    print(f"{sample['events']:>12,} events: {held}", flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.memory", description=__doc__)
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--customers", type=int, default=1_000)
    parser.add_argument("--servers", type=int, default=2, help="server processes on one port")
    parser.add_argument("--save", default="memory", help="name of the result")
    return parser.parse_args()


if __name__ == "__main__":
    main()
