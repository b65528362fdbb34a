"""Running children together: start by rank, restart what dies, stop in order."""

import os
import signal
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, Self

from meterscope.supervisor.errors import SupervisorError
from meterscope.supervisor.folder import DataFolder
from meterscope.supervisor.log import Log
from meterscope.supervisor.process import Child, Program, describe
from meterscope.supervisor.signals import Signals

_POLL_SECONDS: Final = 0.05
_ASK_AGAIN_SECONDS: Final = 0.2
_IDLE_SECONDS: Final = 5.0
_TRIES: Final = 3
# Wrong settings or a wrong command line: another try would end the same way.
_HOPELESS: Final = (os.EX_CONFIG, 2)


class Stack:
    """The children of one supervisor. Use it in the main thread: the children end with the thread that started them."""

    def __init__(
        self,
        folder: DataFolder,
        *,
        grace_seconds: float,
        report: Callable[[str], None],
        on_change: Callable[[], None],
    ) -> None:
        """Prepare; nothing starts yet.

        Args:
            folder: where logs go.
            grace_seconds: what each rank gets to stop in order; then its processes are killed.
            report: told what happens to children, a sentence each.
            on_change: called when a process id has changed, while it supervises.
        """
        self._folder = folder
        self._grace = grace_seconds
        self._report = report
        self._on_change = on_change
        self._children: list[Child] = []
        self._signals = Signals()
        self._complete = False

    def __enter__(self) -> Self:
        self._signals.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        try:
            self._stop()
        finally:
            self._signals.__exit__(kind, error, tb)

    @property
    def pids(self) -> dict[str, int]:
        """The process ids by name; a child that is about to be started again has none."""
        return {child.program.name: child.pid for child in self._children if child.pid}

    def add(self, programs: Sequence[Program]) -> None:
        """Take programs in; `wait` starts them."""
        self._children.extend(Child(program, Log(self._folder.log_file(program.name))) for program in programs)

    @property
    def unhealthy(self) -> set[str]:
        """The names of the children that cannot do their work, or have not been asked yet."""
        return {child.program.name for child in self._children if not child.is_healthy}

    def wait(self, until: Callable[[], bool], *, seconds: float) -> bool:
        """Start what has been added, and wait for a condition. False if asked to stop meanwhile.

        Raises:
            SupervisorError: a child cannot start, or the time is over; with the last lines of its log.
        """
        deadline = time.monotonic() + seconds
        while not self._signals.stops:
            self._turn()
            if until():
                return True
            if time.monotonic() > deadline:
                raise self._too_late(seconds)
            self._signals.wait(_POLL_SECONDS)
        return False

    def supervise(self) -> None:
        """Start again what dies, until asked to stop."""
        self._complete = True
        while not self._signals.stops:
            self._turn()
            due = [child.restart_at - time.monotonic() for child in self._children if child.pid is None]
            asked = [_ASK_AGAIN_SECONDS for child in self._children if not child.is_healthy]
            self._signals.wait(max(0.0, min([*due, *asked, _IDLE_SECONDS])))

    def _turn(self) -> None:
        for child in self._children:
            status = child.reap(time.monotonic())
            if status is not None:
                self._mourn(child, status)
        for child in self._children:
            if child.pid is None and time.monotonic() >= child.restart_at:
                child.start(time.monotonic())
                if self._complete:
                    self._report(f"{child.program.name} runs again as process {child.pid}")
                    self._on_change()
        for child in sorted(self._children, key=lambda child: child.program.rank):
            # The higher ranks need the lower ones: asking them earlier only costs time.
            if not child.is_healthy and (child.pid is None or not child.probe()):
                break

    def _mourn(self, child: Child, status: int) -> None:
        name = child.program.name
        if not child.was_healthy and (status in _HOPELESS or child.deaths >= _TRIES):
            raise SupervisorError(f"{name} cannot start: it {describe(status)}\n{child.log.end()}")
        if child.was_healthy or child.deaths == 1:
            self._report(f"{name} {describe(status)} and is started again; see {child.log.file}")

    def _too_late(self, seconds: float) -> SupervisorError:
        waiting = [child for child in self._children if not child.is_healthy]
        names = ", ".join(child.program.name for child in waiting)
        return SupervisorError(f"not healthy within {seconds:g} s: {names}\n{waiting[0].log.end()}")

    def _stop(self) -> None:
        ranks = sorted({child.program.rank for child in self._children}, reverse=True)
        for rank in ranks:
            children = [child for child in self._children if child.program.rank == rank]
            for child in children:
                child.signal(child.program.stop_signal)
            if not self._ended(children, self._grace):
                for child in children:
                    child.signal(signal.SIGKILL)
                self._ended(children, self._grace)

    def _ended(self, children: Sequence[Child], seconds: float) -> bool:
        """Wait for processes to end; give up at the time's end or when asked to stop once more."""
        deadline = time.monotonic() + seconds
        asked = self._signals.stops
        while True:
            for child in children:
                child.reap(time.monotonic())
            left = deadline - time.monotonic()
            if all(child.pid is None for child in children):
                return True
            if left <= 0 or self._signals.stops > max(asked, 1):
                return False
            self._signals.wait(left)
