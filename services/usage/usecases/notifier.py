"""Telling the rollup that there is something to do: after the commit, many times at once."""

import threading
from typing import Final

from services.kit import notices
from services.kit.db import Database

_SECONDS_BETWEEN: Final = 0.05


def channel(database: Database) -> str:
    """Return the name of the rollup's notices."""
    return f"rollup_{database.schema}"


class Notifier:
    """Sends notices from a thread of its own, one every 50 ms at the most."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._wanted = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to send."""
        self._thread = threading.Thread(target=self._send, name="notifier", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Send what is wanted, and stop."""
        self._stopping.set()
        self._wanted.set()
        if self._thread is not None:
            self._thread.join()

    def notice(self) -> None:
        """Have the rollup run soon. Returns at once."""
        self._wanted.set()

    def _send(self) -> None:
        while not self._stopping.is_set():
            self._wanted.wait()
            self._wanted.clear()
            notices.notify(self._database, channel(self._database))
            self._stopping.wait(_SECONDS_BETWEEN)
