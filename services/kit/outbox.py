"""The transactional outbox: a use case writes its jobs into its own transaction, and they run at least once.

    outbox.put(conn, job="collect_invoice", payload={"invoice_id": …}, aggregate=customer_id)

A relay hands rows to Dramatiq (relay.py), a runner runs them (runner.py) and the job marks its row done, if it likes in
the transaction of its own effect: then the effect happens once. Effects on another service carry `job.id` as their
`request_id`, under which the receiver acts once (idempotency.py).

The outbox is the only retry. A row that is not done within its lease is handed out again, so that a killed worker or a
flushed Redis loses nothing; after its attempts it is dead: counted, listed, and run again only by `Outbox.resend`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa
from opentelemetry import trace
from opentelemetry.trace import SpanKind

from services.kit import notices, telemetry
from services.kit.db import Database, after_commit
from services.kit.errors import FailedPrecondition, NotFound
from services.kit.ids import new_id
from services.kit.tables import create_kit_tables, outbox, outbox_tables

__all__ = [
    "LEASE",
    "PATIENT",
    "DeadRow",
    "Job",
    "JobSpec",
    "Jobs",
    "LeaseLost",
    "Outbox",
    "Postpone",
    "create_kit_tables",
    "outbox_tables",
]

LEASE: Final = timedelta(seconds=15)
# Attempts for more than a day with the default backoff: for what another service has to know and may be away for.
PATIENT: Final = 300


class LeaseLost(Exception):
    """Someone else has taken over: whatever this holder was about to write must not be written."""


class Postpone(Exception):
    """Raised by a job that cannot be done yet: it is run again after `delay`, and that counts as no failure."""

    def __init__(self, delay: timedelta, reason: str = "") -> None:
        super().__init__(reason or f"postponed by {delay}")
        self.delay = delay


class OutboxRowNotFound(NotFound):
    """No such row in the outbox."""


class OutboxRowNotDead(FailedPrecondition):
    """Only a row that was given up can be sent again or discarded."""


@dataclass(frozen=True)
class DeadRow:
    """A row that was given up after its attempts."""

    id: str
    job: str
    aggregate: str
    payload: dict[str, Any]
    attempts: int
    last_error: str
    created_at: datetime
    finished_at: datetime


class Outbox:
    """Puts jobs into a service's outbox, and deals with its dead rows."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._tracer = trace.get_tracer("services.kit")

    def put(
        self,
        conn: sa.Connection,
        *,
        job: str,
        payload: Mapping[str, Any],
        aggregate: str = "",
        delay: timedelta = timedelta(),
    ) -> str:
        """Insert a job in the caller's transaction; it runs once that has committed, usually within milliseconds.

        Args:
            conn: of `Database.transaction`.
            job: a name that the service's worker has registered.
            payload: JSON. Ids only: the job reads what it needs when it runs.
            aggregate: rows of one aggregate run strictly in the order of their insertion, each after the one before is
                done. Concurrent transactions must lock the aggregate before they put, or the order is nobody's. A
                delayed, failing or dead row holds up those behind it. Empty: no order.
            delay: the earliest time from now.

        Returns:
            The row's id, `obx_…`.
        """
        return self.put_all(conn, job=job, entries=[(aggregate, payload)], delay=delay)[0]

    def put_all(
        self,
        conn: sa.Connection,
        *,
        job: str,
        entries: Iterable[tuple[str, Mapping[str, Any]]],
        delay: timedelta = timedelta(),
        contexts: Sequence[Mapping[str, str]] | None = None,
    ) -> list[str]:
        """Insert many rows of one job at once. `entries` are (aggregate, payload); see `put`.

        `contexts` are the trace contexts that the rows run in, one each, where that is not the caller's.
        """
        attributes = {
            "messaging.system": "dramatiq",
            "messaging.operation.type": "send",
            "messaging.destination.name": self._database.service,
        }
        with self._tracer.start_as_current_span(f"send {job}", kind=SpanKind.PRODUCER, attributes=attributes):
            context = telemetry.inject()
        rows = [
            {"id": new_id("obx"), "job": job, "aggregate": aggregate, "payload": dict(payload), "context": context}
            for aggregate, payload in entries
        ]
        if not rows:
            return []
        if contexts is not None:
            rows = [row | {"context": dict(own)} for row, own in zip(rows, contexts, strict=True)]
        due = sa.func.now() + delay
        conn.execute(sa.insert(outbox).values(due_at=due, available_at=due), rows)
        wake_relay(conn, self._database)
        return [str(row["id"]) for row in rows]

    def dead(self, *, limit: int = 100) -> list[DeadRow]:
        """Return the rows that were given up, the latest first."""
        columns = [outbox.c[name] for name in DeadRow.__dataclass_fields__]
        query = sa.select(*columns).where(outbox.c.state == "DEAD").order_by(outbox.c.finished_at.desc()).limit(limit)
        with self._database.transaction() as conn:
            return [DeadRow(**row._mapping) for row in conn.execute(query)]  # noqa: SLF001 - SQLAlchemy's public name

    def resend(self, row_id: str) -> None:
        """Run a dead row again, with its attempts counted from zero.

        Raises:
            OutboxRowNotFound: no such row.
            OutboxRowNotDead: it is not dead.
        """
        now = sa.func.now()
        self._change_dead(row_id, state="QUEUED", attempts=0, due_at=now, available_at=now, finished_at=None)

    def discard(self, row_id: str) -> None:
        """Count a dead row as done, so that those behind it in its aggregate run.

        Raises:
            OutboxRowNotFound: no such row.
            OutboxRowNotDead: it is not dead.
        """
        self._change_dead(row_id, state="DONE", finished_at=sa.func.now())

    def _change_dead(self, row_id: str, **values: Any) -> None:
        with self._database.transaction() as conn:
            query = sa.select(outbox.c.state).where(outbox.c.id == row_id).with_for_update()
            state = conn.execute(query).scalar_one_or_none()
            if state is None:
                raise OutboxRowNotFound(f"{row_id} is not in the outbox")
            if state != "DEAD":
                raise OutboxRowNotDead(f"{row_id} is {state}, not DEAD")
            conn.execute(sa.update(outbox).where(outbox.c.id == row_id).values(**values))
            wake_relay(conn, self._database)


class Job:
    """One run of an outbox row. `id` stays the same over all runs: it is the `request_id` towards other services."""

    def __init__(self, database: Database, row: Any, lease: timedelta) -> None:
        self.id: str = row.id
        self.name: str = row.job
        self.payload: dict[str, Any] = row.payload
        self.aggregate: str = row.aggregate
        self.attempt: int = row.attempts
        self.token: int = row.token
        self.finished = False
        self._database = database
        self._lease = lease

    def finish(self, conn: sa.Connection) -> None:
        """Mark the row done in the job's own transaction: its effect and the mark are there together, or neither.

        Raises:
            LeaseLost: the row was taken over; let it roll the transaction back.
        """
        done = {"state": "DONE", "finished_at": sa.func.now(), "last_error": None}
        if not self.change(conn, **done):
            raise LeaseLost(f"{self.name} {self.id} was taken over by another runner")
        self.finished = True

    def fence(self, conn: sa.Connection) -> None:
        """Hold the row until the transaction ends; for writes of a job before its last.

        Raises:
            LeaseLost: the row was taken over.
        """
        query = sa.select(outbox.c.id).where(*self._mine()).with_for_update()
        if conn.execute(query).one_or_none() is None:
            raise LeaseLost(f"{self.name} {self.id} was taken over by another runner")

    def renew(self) -> None:
        """Extend the lease from now. The worker does so by itself while the job is within its time limit.

        Raises:
            LeaseLost: the row was taken over: stop.
        """
        with self._database.transaction() as conn:
            if not self.change(conn, available_at=sa.func.now() + self._lease):
                raise LeaseLost(f"{self.name} {self.id} was taken over by another runner")

    def change(self, conn: sa.Connection, **values: Any) -> bool:
        """Write the row if this run still holds it; say whether it does. For the runner."""
        changed = conn.execute(sa.update(outbox).where(*self._mine()).values(**values)).rowcount == 1
        if self.aggregate and changed and "state" in values:
            # The next of the aggregate may go.
            wake_relay(conn, self._database)
        return changed

    def _mine(self) -> tuple[sa.ColumnElement[bool], ...]:
        return (outbox.c.id == self.id, outbox.c.token == self.token, outbox.c.state == "RUNNING")


@dataclass(frozen=True)
class JobSpec:
    """How a job is run."""

    name: str
    function: Callable[[Job], None]
    time_limit: timedelta
    max_attempts: int
    backoff: tuple[timedelta, timedelta]


class Jobs:
    """The jobs that a service's worker can run."""

    def __init__(self, specs: Iterable[JobSpec] = ()) -> None:
        self._specs = {spec.name: spec for spec in specs}

    def register(
        self,
        name: str,
        function: Callable[[Job], None],
        *,
        time_limit: timedelta = timedelta(seconds=60),
        max_attempts: int = 20,
        backoff: tuple[timedelta, timedelta] = (timedelta(seconds=1), timedelta(minutes=5)),
    ) -> None:
        """Name what runs a job. It must bear being run again: at least once, exactly once in effect.

        Args:
            name: as in `Outbox.put`.
            function: returns when done; raises to be run again; raises `Postpone` to be run later.
            time_limit: after which the run is broken off and counts as failed.
            max_attempts: failed runs until the row is dead. With the default backoff, 20 attempts take an hour.
            backoff: the wait after the first failure, doubled for each further one, and the longest wait.

        Raises:
            ValueError: the name is taken.
        """
        if name in self._specs:
            raise ValueError(f"job {name} is registered twice")
        self._specs[name] = JobSpec(name, function, time_limit, max_attempts, backoff)

    def __getitem__(self, name: str) -> JobSpec:
        return self._specs[name]

    def __iter__(self) -> Iterator[JobSpec]:
        return iter(self._specs.values())


def channel(database: Database) -> str:
    """Return the name of the notices that wake a service's relays."""
    return f"outbox_{database.schema}"


def wake_relay(conn: sa.Connection, database: Database) -> None:
    """Have the relay look at once when this transaction has committed."""
    name = channel(database)
    after_commit(conn, name, lambda: notices.notify(database, name))
