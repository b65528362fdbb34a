"""Deletes what the kit's tables need no longer: outbox rows that are done, and remembered requests."""

from datetime import timedelta
from typing import Final

import sqlalchemy as sa

from services.kit.db import Database
from services.kit.outbox import Job
from services.kit.periodic import Periodic
from services.kit.tables import outbox, requests

JOB: Final = "delete_expired_rows"
SCHEDULE: Final = Periodic(name=JOB, every=timedelta(hours=1), job=JOB)
_BATCH: Final = 5_000


class Retention:
    """The job of that name."""

    def __init__(self, database: Database, *, outbox_rows: timedelta, requests_: timedelta) -> None:
        """Prepare.

        Args:
            database: whose rows.
            outbox_rows: how long rows that are done are kept; dead ones are kept until someone deals with them.
            requests_: how long a repeated request is recognised.
        """
        self._database = database
        self._outbox_rows = outbox_rows
        self._requests = requests_

    def run(self, job: Job) -> None:
        """Delete in batches, each its own short transaction."""
        done = (outbox.c.state == "DONE", outbox.c.finished_at < sa.func.now() - self._outbox_rows)
        old = (requests.c.created_at < sa.func.now() - self._requests,)
        for table, expired in ((outbox, done), (requests, old)):
            while self._delete(table, expired) == _BATCH:
                job.renew()

    def _delete(self, table: sa.Table, expired: tuple[sa.ColumnElement[bool], ...]) -> int:
        keys = sa.tuple_(*table.primary_key.columns)
        some = sa.select(*table.primary_key.columns).where(*expired).limit(_BATCH)
        with self._database.transaction() as conn:
            return conn.execute(sa.delete(table).where(keys.in_(some))).rowcount
