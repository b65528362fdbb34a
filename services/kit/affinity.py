"""One core for a server process: Python runs one thread at a time, and handing over between cores costs more than it gives.

A call passes through half a dozen threads of grpcio and of ours. Spread over two cores each handover wakes another core
and then waits for the interpreter's lock: a single event took 22 changes of thread and 580 µs of processor time, on one
core 10 and 330 µs. Nor may one that is woken interrupt the one that woke it (SCHED_BATCH): that still holds the lock. 4 and
300 µs. Further cores are for further processes on the same port, for PostgreSQL and for the workers.

Linux only: elsewhere a process stays where the system puts it.
"""

import logging
import os
import random
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import psutil

from services.kit.runtime import processor_seconds

# Two servers that look at once must not move to and fro together.
_LOOK_EVERY_SECONDS: Final = (1.0, 3.0)
_BUSY: Final = 0.3
_WORTHWHILE: Final = 0.1
_TASKS: Final = Path("/proc/self/task")

_log = logging.getLogger(__name__)


class OneCore:
    """Keeps the process on one core: at first that of fewest others that are kept so, then one that they leave it.

    Processes that may run anywhere are no reason to move: the system moves them.
    """

    def __init__(self) -> None:
        self._cores = sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else []
        self._seconds: dict[int, float] = {}
        self._looked = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="affinity", daemon=True)

    def start(self) -> None:
        """Settle on a core, and look from then on whether another one is better."""
        if not self._cores:
            return
        try:
            neighbours = [core for pid, core in _kept().items() if _is_program(pid)]
            _move(min(self._cores, key=lambda core: (neighbours.count(core), random.random())))
        except OSError:
            _log.warning("stays where the system puts it: /proc cannot be read", exc_info=True)
            return
        if len(self._cores) > 1:
            self._thread.start()

    def stop(self) -> None:
        """Stay where it is."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.wait(random.uniform(*_LOOK_EVERY_SECONDS)):
            # What is gone by now, or may not be asked about, is looked for the next time.
            with suppress(OSError):
                self._look()

    def _look(self) -> None:
        """Move where that takes this process out of others' way."""
        now = time.monotonic()
        seconds, self._looked = now - self._looked, now
        before, own = self._seconds, os.getpid()
        self._seconds = {own: _spent(own) or 0.0}
        if self._seconds[own] - before.get(own, 0.0) < _BUSY * seconds:
            return
        cores = _kept()
        self._seconds |= {pid: spent for pid in cores if (spent := _spent(pid)) is not None}
        shares = {pid: (spent - before[pid]) / seconds for pid, spent in self._seconds.items() if pid in before}
        best = better(own, cores, shares, self._cores)
        if best is not None:
            _log.info("moves to another core", extra={"core": best, "left": cores[own]})
            _move(best)


def better(own: int, cores: Mapping[int, int], shares: Mapping[int, float], allowed: Iterable[int]) -> int | None:
    """Return the core that a process had better be on, or None to stay.

    Args:
        own: the process.
        cores: of the processes that are kept on one.
        shares: how much of a core each of them uses, 0 to 1.
        allowed: the cores that there are to choose from.
    """
    mine = cores.get(own)
    if mine is None or shares.get(own, 0.0) < _BUSY:
        return None
    used = dict.fromkeys(allowed, 0.0)
    for pid, core in cores.items():
        if pid != own and core in used:
            used[core] += shares.get(pid, 0.0)
    best = min(used, key=lambda core: used[core])
    return best if used[best] < used.get(mine, 0.0) - _WORTHWHILE else None


def _move(core: int) -> None:
    moved: set[str] = set()
    # Threads that begin meanwhile are where those were that began them.
    while new := {task.name for task in _TASKS.iterdir()} - moved:
        for task in new:
            # Ended meanwhile, or a container that does not let it: then it is as it was.
            with suppress(OSError):
                os.sched_setaffinity(int(task), {core})
                if os.sched_getscheduler(int(task)) == os.SCHED_OTHER:
                    os.sched_setscheduler(int(task), os.SCHED_BATCH, os.sched_param(0))
        moved |= new


def _kept() -> dict[int, int]:
    """Return the core of each process that is kept on one: the system's own, one for each core, included."""
    kept = {}
    for pid in psutil.pids():
        # Gone, or none of ours to ask about.
        with suppress(OSError):
            core, *others = os.sched_getaffinity(pid)
            if not others:
                kept[pid] = core
    return kept


def _is_program(pid: int) -> bool:
    """Say whether it is no thread of the system's own."""
    try:
        return bool(psutil.Process(pid).cmdline())
    except psutil.Error:
        return False


def _spent(pid: int) -> float | None:
    """Return the processor time in seconds that a process has used, None where it is gone."""
    try:
        return processor_seconds(psutil.Process(pid))
    except psutil.Error:
        return None
