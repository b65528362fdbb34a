"""Telling the rollup that there is something to do: after the commit, many times at once."""

import threading
from typing import Final

from services.kit import notices
from services.kit.db import Database

_SECONDS_BETWEEN: Final = 0.05
# How long a stop may go unnoticed.
_LOOK_UP_SECONDS: Final = 0.25


def channel(database: Database) -> str:
    """Return the name of the rollup's notices."""
    return f"rollup_{database.schema}"


def hurry(database: Database) -> None:
    """Break off the rollup's rest: somebody waits for it. Sent at once, and not coalesced."""
    notices.notify(database, hurry_channel(database))


def hurry_channel(database: Database) -> str:
    """Return the name of the notices that `hurry` sends."""
    return f"rollup_{database.schema}_hurry"


class Notifier:
    """Sends notices beside the calls, one every 50 ms at the most, while `run` is running."""

    name = "notifier"

    def __init__(self, database: Database) -> None:
        self._database = database
        self._wanted = threading.Event()

    def notice(self) -> None:
        """Have the rollup run soon. Returns at once."""
        self._wanted.set()

    def run(self, stop: threading.Event) -> None:
        """Send until stopped."""
        sender = notices.Sender(self._database, channel(self._database))
        try:
            while not stop.is_set():
                if self._wanted.wait(_LOOK_UP_SECONDS):
                    self._wanted.clear()
                    sender.send()
                    stop.wait(_SECONDS_BETWEEN)
        finally:
            sender.close()
