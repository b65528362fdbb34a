"""Single runners by a lease in the database, with a fencing token."""

import logging
import os
import socket
import threading
import time
from datetime import timedelta

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from services.kit.db import Database, is_unavailable
from services.kit.ids import new_id
from services.kit.outbox import LeaseLost
from services.kit.tables import leases

_log = logging.getLogger(__name__)


class Lease:
    """The right to be the only one to do something, for a while. One object is one holder."""

    def __init__(self, database: Database, name: str, ttl: timedelta) -> None:
        """Prepare.

        Args:
            database: where the leases are.
            name: of what is held.
            ttl: how long it lasts from each `acquire` or `renew`; another may take it afterwards.
        """
        self.name = name
        self.token = 0
        self._database = database
        self._ttl = ttl
        self._holder = new_id(f"{socket.gethostname()}-{os.getpid()}")
        self._until = 0.0
        self._lock = threading.Lock()

    @property
    def held(self) -> bool:
        """Whether the lease is held by this process's clock. Only `fence` is proof."""
        return time.monotonic() < self._until

    def acquire(self) -> bool:
        """Take the lease if it is free or expired, renew it if it is ours; say whether it is held now."""
        now = sa.func.clock_timestamp()
        statement = insert(leases).values(name=self.name, holder=self._holder, token=1, expires_at=now + self._ttl)
        ours = leases.c.holder == self._holder
        taken = statement.on_conflict_do_update(
            index_elements=[leases.c.name],
            set_={
                "holder": self._holder,
                # A lease that ran out and was taken again is a new one: writes under the old token stay refused.
                "token": sa.case((ours & (leases.c.expires_at > now), leases.c.token), else_=leases.c.token + 1),
                "expires_at": now + self._ttl,
            },
            where=ours | (leases.c.expires_at <= now),
        ).returning(leases.c.token)
        with self._lock:
            # Counted from before the question, so that we never think to hold it longer than the database does.
            asked = time.monotonic()
            with self._database.transaction() as conn:
                token = conn.execute(taken).scalar_one_or_none()
            self.token = token or 0
            self._until = asked + self._ttl.total_seconds() if token else 0.0
            return token is not None

    def renew(self) -> bool:
        """Extend the lease if it is still held under the same token; say whether it is."""
        with self._lock:
            asked = time.monotonic()
            values = {"expires_at": sa.func.clock_timestamp() + self._ttl}
            with self._database.transaction() as conn:
                renewed = conn.execute(sa.update(leases).where(*self._mine()).values(values)).rowcount == 1
            self._until = asked + self._ttl.total_seconds() if renewed else 0.0
            return renewed

    def fence(self, conn: sa.Connection) -> None:
        """Keep the lease from changing hands until this transaction ends.

        Raises:
            LeaseLost: it has changed hands, or expired.
        """
        if conn.execute(sa.select(leases.c.name).where(*self._mine()).with_for_update()).one_or_none() is None:
            self._until = 0.0
            raise LeaseLost(f"lease {self.name} is held by another process")

    def release(self) -> None:
        """Give the lease back, if it is held."""
        with self._lock:
            self._until = 0.0
            with self._database.transaction() as conn:
                now = sa.func.clock_timestamp()
                conn.execute(sa.update(leases).where(*self._mine()).values(expires_at=now))

    def give_up(self) -> None:
        """Give the lease back at a stop; where the database is away, it runs out by itself."""
        try:
            self.release()
        except Exception as error:
            if not is_unavailable(error):
                raise
            _log.debug("a lease runs out by itself", extra={"lease": self.name}, exc_info=True)

    def _mine(self) -> tuple[sa.ColumnElement[bool], ...]:
        return (
            leases.c.name == self.name,
            leases.c.holder == self._holder,
            leases.c.token == self.token,
            leases.c.expires_at > sa.func.clock_timestamp(),
        )
