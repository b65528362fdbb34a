"""The limits of customers without a plan: what the settings say is put in force in the database, for all to read."""

from collections.abc import Sequence

from services.kit.db import Database
from services.usage.domain.limit import Limit
from services.usage.store import customers, places
from services.usage.usecases.notifier import Notifier


class DefaultLimits:
    """Used by the worker that holds the lease, so that two processes of different settings don't take turns."""

    def __init__(self, database: Database, notifier: Notifier, wanted: Sequence[Limit]) -> None:
        """Prepare.

        Args:
            database: of usage.
            notifier: tells the rollup, which judges thresholds anew.
            wanted: by meter.
        """
        self._database = database
        self._notifier = notifier
        self._wanted = tuple(wanted)

    def put_in_force(self) -> None:
        """Have these limits apply from now on, unless they do already."""
        with self._database.autocommit() as conn:
            if customers.default_limits_in_force(conn) == self._wanted:
                return
        with self._database.transaction() as conn:
            tx = places.writer(conn)
            customers.replace_default_limits(conn, self._wanted, tx)
        self._notifier.notice()
