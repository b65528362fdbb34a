"""The threads of a server process that go on between calls."""

import logging
import threading
from collections.abc import Sequence
from typing import Final, Protocol

_PAUSE_SECONDS: Final = 1.0
_STOP_SECONDS: Final = 5.0

_log = logging.getLogger(__name__)


class Loop(Protocol):
    """Something that runs until it is told to stop; the same as in `services.kit.worker`."""

    name: str

    def run(self, stop: threading.Event) -> None:
        """Run until `stop` is set."""


class Background:
    """Runs loops, each on a thread of its own; one that fails is run again."""

    def __init__(self, loops: Sequence[Loop]) -> None:
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(loop,), name=loop.name, daemon=True) for loop in loops
        ]

    def start(self) -> None:
        """Start them."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop them."""
        self._stop.set()
        for thread in self._threads:
            thread.join(_STOP_SECONDS)

    def _run(self, loop: Loop) -> None:
        while not self._stop.is_set():
            try:
                loop.run(self._stop)
            except Exception:  # noqa: BLE001 - whatever it was, the process has to go on
                _log.exception("a loop failed and is run again", extra={"loop": loop.name})
            self._stop.wait(_PAUSE_SECONDS)
