"""Connections to PostgreSQL that don't wait for ever: a server that is frozen, or out of reach, says nothing at all.

The server bounds transactions by itself (`transaction_timeout`), which takes a server that runs. Where its processes stand
still the kernel goes on to acknowledge what is sent, so that no keepalive strikes either. Whoever waits for longer than the
server would have allowed itself gives up and drops the connection: half an answer may still come over it. What the
server was at work on may yet happen; that is the unknown outcome which callers know from a lost connection.
"""

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

import psycopg
from psycopg.abc import RV, PQGen
from psycopg.pq import TransactionStatus

# Beyond what the server allows a transaction: its own word comes first, as long as it has one.
_GRACE: Final = timedelta(seconds=1)
# For longer than our channels try again what was UNAVAILABLE: such a call is not to wait for the same silence twice.
_REST_SECONDS: Final = 2.0
_INTERVAL_SECONDS: Final = 0.1


def patience_for(transaction_timeout: timedelta) -> float:
    """Return for how many seconds an answer is worth waiting for, where the server allows a transaction so long."""
    return (transaction_timeout + _GRACE).total_seconds()


class Silent(psycopg.OperationalError):
    """The server gave no answer in time; what it was asked to do may have happened, or yet happen."""


class Connection(psycopg.Connection[Any]):
    """A connection that is dropped when the server says nothing for too long.

    Attributes:
        patience: seconds for which any one answer is waited for; None for ever.
        fell_silent: called when the server did not answer in time.
    """

    patience: float | None = None
    fell_silent: Callable[[], None] = staticmethod(lambda: None)

    def wait(self, gen: PQGen[RV], interval: float = _INTERVAL_SECONDS, timeout: float | None = None) -> RV:
        """Wait for an answer: all that is sent and asked passes here.

        Raises:
            Silent: none came; the connection is closed.
        """
        patience = self.patience
        if timeout is not None or patience is None:
            return super().wait(gen, interval, timeout)
        started = time.monotonic()
        try:
            return super().wait(gen, interval, patience)
        except psycopg.OperationalError as error:
            # An error that the server tells of comes with the end of its answer.
            is_answered = self.pgconn.transaction_status != TransactionStatus.ACTIVE
            if is_answered or time.monotonic() - started < patience:
                raise
            self.close()
            self.fell_silent()
            raise Silent(f"PostgreSQL gave no answer within {patience:g} s; the connection is dropped") from error


class Connector:
    """Opens the connections of one database, none for a moment after its server was silent.

    Callers who waited behind others for their turn would wait anew, each for as long, and beyond their deadlines.
    """

    def __init__(self, transaction_timeout: timedelta) -> None:
        """Prepare. `transaction_timeout` is what the server allows."""
        self.patience = patience_for(transaction_timeout)
        self._resting_until = 0.0

    def open(self, *arguments: Any, **options: Any) -> Connection:
        """Open a connection; takes what `psycopg.connect` takes.

        Raises:
            Silent: the server was silent a moment ago.
            psycopg.OperationalError: it cannot be had.
        """
        if time.monotonic() < self._resting_until:
            raise Silent("PostgreSQL gave no answer a moment ago")
        try:
            conn = Connection.connect(*arguments, **options)
        except psycopg.errors.ConnectionTimeout:
            self._rest()
            raise
        self._resting_until = 0.0
        conn.patience, conn.fell_silent = self.patience, self._rest
        return conn

    def _rest(self) -> None:
        self._resting_until = time.monotonic() + _REST_SECONDS
