"""Notices between processes by PostgreSQL's NOTIFY: they hasten what a poll would find anyway, and may be lost.

NOTIFY serialises the commits of the transactions that hold it, so it is sent after the commit, by itself.
"""

import logging
import threading
from typing import Final

import psycopg
import sqlalchemy as sa
from psycopg import sql

from services.kit.db import Database, is_unavailable

_NOTIFY: Final = "SELECT pg_notify(%s, '')"

_log = logging.getLogger(__name__)


def notify(database: Database, channel: str) -> None:
    """Wake the listeners of a channel. Never fails for want of a database: they poll as well."""
    try:
        with database.autocommit() as conn:
            conn.execute(sa.select(sa.func.pg_notify(channel, "")))
    except Exception as error:
        if not is_unavailable(error):
            raise
        _log.debug("no notice sent", extra={"channel": channel}, exc_info=True)


class _Connected:
    """One end of a channel, with a connection of its own that is opened when it is needed, and again when it was lost."""

    def __init__(self, database: Database, channel: str) -> None:
        self._database = database
        self._channel = channel
        self._conn: psycopg.Connection[tuple[object, ...]] | None = None

    def close(self) -> None:
        """Close the connection."""
        if self._conn is not None:
            self._conn.close()
            self._conn = None


class Sender(_Connected):
    """Sends notices, many a second: by `notify`, without a connection of its own, each costs ten times as much."""

    def send(self) -> None:
        """Wake the listeners. Never fails for want of a database: they poll as well."""
        try:
            if self._conn is None:
                self._conn = self._database.dedicated()
            self._conn.execute(_NOTIFY, (self._channel,), prepare=True)
        except Exception as error:
            self.close()
            if not is_unavailable(error):
                raise
            _log.debug("no notice sent", extra={"channel": self._channel}, exc_info=True)


class Listener(_Connected):
    """Waits for notices."""

    def wait(self, seconds: float, stop: threading.Event) -> bool:
        """Wait for a notice, `seconds` at most. Say whether one came; without a database only the time passes."""
        try:
            if self._conn is None:
                self._conn = self._database.dedicated()
                self._conn.execute(sql.SQL("LISTEN {}").format(sql.Identifier(self._channel)))
                return True
            return len(list(self._conn.notifies(timeout=seconds, stop_after=1))) > 0
        except psycopg.OperationalError:
            self.close()
            stop.wait(seconds)
            return False
