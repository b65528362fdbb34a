"""What a process and its machine use: processor, memory, threads, files, garbage collection, and the data folder's disk.

Each process reports its own: these are no state that processes share. Names are OpenTelemetry's for processes, and the
collector's host_metrics receiver's for the machine.
"""

import gc
import shutil
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

import psutil
from opentelemetry.metrics import Meter, Observation

from services.kit import memory, metrics

# What psutil tells apart, by what we call it; what a system does not tell is 0.
_STATES: Final = {
    "user": ("user", "nice"),
    "system": ("system",),
    "idle": ("idle",),
    "wait": ("iowait",),
    "other": ("irq", "softirq", "steal"),
}


class Runtime:
    """Reads what is asked for at each export. Shares of time are of the time since the one before."""

    def __init__(self, folder: Path) -> None:
        """Prepare.

        Args:
            folder: on the disk that is looked after.
        """
        self._folder = folder.absolute()
        self._disk = _disk(self._folder)
        self._process = psutil.Process()
        self._memory = memory.limit()
        self._processors = psutil.cpu_count() or 1
        self._used = (time.monotonic(), processor_seconds(self._process))
        self._machine = _machine_seconds()

    def observe(self, meter: Meter) -> None:
        """Make the instruments."""
        metrics.PROCESS_CPU_TIME.observe(meter, self._cpu_time)
        metrics.PROCESS_CPU_UTILIZATION.observe(meter, self._cpu_utilization)
        metrics.PROCESS_MEMORY.observe(meter, lambda: [Observation(self._process.memory_info().rss)])
        metrics.PROCESS_MEMORY_UTILIZATION.observe(
            meter, lambda: [Observation(self._process.memory_info().rss / self._memory)]
        )
        metrics.PROCESS_THREADS.observe(meter, lambda: [Observation(self._process.num_threads())])
        metrics.PROCESS_FILES.observe(meter, lambda: [Observation(self._process.num_fds())])
        metrics.PROCESS_UPTIME.observe(meter, lambda: [Observation(time.time() - self._process.create_time())])
        metrics.GC_COLLECTIONS.observe(meter, _collections)
        metrics.SYSTEM_CPU_UTILIZATION.observe(meter, self._machine_utilization)
        metrics.SYSTEM_MEMORY_UTILIZATION.observe(meter, _machine_memory)
        metrics.DISK_UTILIZATION.observe(meter, self._disk_utilization)
        metrics.DISK_FREE.observe(meter, self._disk_free)

    def _cpu_time(self) -> Iterable[Observation]:
        times = self._process.cpu_times()
        yield Observation(times.user, {"cpu.mode": "user"})
        yield Observation(times.system, {"cpu.mode": "system"})

    def _cpu_utilization(self) -> Iterable[Observation]:
        before, now = self._used, (time.monotonic(), processor_seconds(self._process))
        if now[0] > before[0]:
            self._used = now
            yield Observation((now[1] - before[1]) / (now[0] - before[0]) / self._processors)

    def _machine_utilization(self) -> Iterable[Observation]:
        before, now = self._machine, _machine_seconds()
        passed = {state: max(seconds - before[state], 0.0) for state, seconds in now.items()}
        total = sum(passed.values())
        if total > 0:
            self._machine = now
            for state, seconds in passed.items():
                yield Observation(seconds / total, {"state": state})

    def _disk_utilization(self) -> Iterable[Observation]:
        # A folder that is gone says nothing of its disk.
        with suppress(OSError):
            disk = shutil.disk_usage(self._folder)
            # What only root may write is neither used nor free.
            yield Observation(disk.used / max(disk.used + disk.free, 1), self._disk)

    def _disk_free(self) -> Iterable[Observation]:
        with suppress(OSError):
            yield Observation(shutil.disk_usage(self._folder).free, self._disk)


def processor_seconds(process: psutil.Process) -> float:
    """Return the processor time in seconds that a process has used, without its children's."""
    times = process.cpu_times()
    return float(times.user + times.system)


def _machine_seconds() -> dict[str, float]:
    times = psutil.cpu_times()
    return {state: sum(getattr(times, name, 0.0) for name in names) for state, names in _STATES.items()}


def _machine_memory() -> Iterable[Observation]:
    memory = psutil.virtual_memory()
    yield Observation(1 - memory.available / memory.total, {"state": "used"})
    yield Observation(memory.available / memory.total, {"state": "available"})


def _collections() -> Iterable[Observation]:
    for generation, stats in enumerate(gc.get_stats()):
        yield Observation(stats["collections"], {"cpython.gc.generation": str(generation)})


def _disk(folder: Path) -> dict[str, str]:
    """Return the labels of the disk that a folder is on."""
    mount = next(path for path in (folder, *folder.parents) if path.is_mount() or path == path.parent)
    devices = {part.mountpoint: part.device for part in psutil.disk_partitions(all=True)}
    return {"device": devices.get(str(mount), "unknown"), "mountpoint": str(mount)}
