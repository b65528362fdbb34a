"""Runs outbox rows: starts each at most once per hand-out, under a lease, and writes down how it ended."""

import logging
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Final

import sqlalchemy as sa
from dramatiq.middleware import Interrupt
from opentelemetry import context as otel_context
from opentelemetry import metrics, trace
from opentelemetry.trace import Link, SpanKind, StatusCode

from services.kit import logs, sentry, telemetry
from services.kit.db import Database, is_unavailable
from services.kit.metrics import JOB_DURATION, JOBS
from services.kit.outbox import Job, Jobs, JobSpec, LeaseLost, Postpone
from services.kit.running import RunningJobs
from services.kit.tables import outbox, schedules

# Tail samplers don't wait longer for the rest of a trace.
NEW_TRACE_AFTER: Final = timedelta(seconds=60)
_MAX_ERROR_LENGTH: Final = 2_000

_log = logging.getLogger(__name__)


class Runner:
    """Runs rows on the threads that ask it to."""

    def __init__(self, database: Database, jobs: Jobs, running: RunningJobs, *, lease: timedelta) -> None:
        """Prepare.

        Args:
            database: where the outbox is.
            jobs: what can be run.
            running: keeps the leases meanwhile.
            lease: a row whose runner was killed is handed out again after so long.
        """
        self._database = database
        self._jobs = jobs
        self._running = running
        self._lease = lease
        self._queue = database.service
        self._tracer = trace.get_tracer("services.kit")
        meter = metrics.get_meter("services.kit")
        self._count = JOBS.build(meter)
        self._duration = JOB_DURATION.build(meter)
        for spec in jobs:
            JOBS.start(self._count, {"queue": self._queue, "job_name": spec.name})

    def run_row(self, row_id: str) -> None:
        """Run the row if it is handed out; a doubled or late message finds it running or done, and does nothing."""
        with self._tolerating("a job could not be started", row_id):
            row = self._start(row_id)
            if row is not None:
                self._run_traced(row)

    def _start(self, row_id: str) -> Any:
        values = {
            "state": "RUNNING",
            "token": outbox.c.token + 1,
            "attempts": outbox.c.attempts + 1,
            "available_at": sa.func.now() + self._lease,
        }
        age = (sa.func.now() - outbox.c.created_at).label("age")
        handed_out = (outbox.c.id == row_id, outbox.c.state == "HANDED_OUT")
        with self._database.transaction() as conn:
            return conn.execute(
                sa.update(outbox).where(*handed_out).values(values).returning(outbox, age)
            ).one_or_none()

    def _run_traced(self, row: Any) -> None:
        job, spec = Job(self._database, row, self._lease), self._jobs[row.job]
        token = logs.request_id.set(job.id)
        try:
            with self._span(row) as span:
                started = time.perf_counter()
                status, failure = self._run(job, spec)
                labels = self._labels(spec, status)
                self._count.add(1, labels)
                self._duration.record(time.perf_counter() - started, labels)
                span.set_attribute("meterscope.job.status", status)
                if failure is not None:
                    span.record_exception(failure)
                    span.set_status(StatusCode.ERROR, str(failure))
        finally:
            logs.request_id.reset(token)

    def _run(self, job: Job, spec: JobSpec) -> tuple[str, BaseException | None]:
        """Run the job and write down how it ended; return the status and what went wrong."""
        if job.attempt > spec.max_attempts:
            error = RuntimeError(f"the process ended in the midst of the last of {spec.max_attempts} attempts")
            return self._failed(job, spec, error), error
        try:
            with self._running.limited(job, spec.time_limit):
                spec.function(job)
            if not job.finished:
                with self._database.transaction() as conn:
                    job.finish(conn)
        except LeaseLost as lost:
            _log.warning("lease lost", extra=_fields(job))
            return "lost", lost
        except Postpone as later:
            due = sa.func.now() + later.delay
            self._write(job, state="QUEUED", available_at=due, due_at=due, attempts=job.attempt - 1)
            return "postponed", None
        except (Exception, Interrupt) as failure:  # noqa: BLE001 - whatever a job raises is its failure
            return self._failed(job, spec, failure), failure
        self._move_heartbeat(job)
        return "success", None

    def _failed(self, job: Job, spec: JobSpec, failure: BaseException) -> str:
        # The time limit may have struck while the job was being taken off.
        self._running.forget(job)
        sentry.capture(failure)
        text = f"{type(failure).__name__}: {failure}"[:_MAX_ERROR_LENGTH].replace("\0", "")
        if job.attempt >= spec.max_attempts:
            _log.error("job dead", extra=_fields(job), exc_info=failure)
            self._write(job, state="DEAD", last_error=text, finished_at=sa.func.now())
            return "dead"
        _log.warning("job failed", extra=_fields(job), exc_info=failure)
        again = sa.func.now() + backoff(spec, job.attempt)
        self._write(job, state="QUEUED", available_at=again, last_error=text)
        return "failed"

    def _write(self, job: Job, **values: Any) -> None:
        """Write how the run ended. Where that cannot be, the lease runs out and the row is handed out again."""
        with self._tolerating("a job's end could not be written", job.id), self._database.transaction() as conn:
            job.change(conn, **values)

    def _move_heartbeat(self, job: Job) -> None:
        schedule = job.payload.get("schedule")
        if schedule is not None:
            mine = schedules.c.name == schedule
            with self._tolerating("a heartbeat was not moved", job.id), self._database.transaction() as conn:
                conn.execute(sa.update(schedules).where(mine).values(succeeded_at=sa.func.now()))

    @contextmanager
    def _tolerating(self, message: str, row_id: str) -> Iterator[None]:
        """Log that the database is away; the row's lease then does the rest."""
        try:
            yield
        except Exception as error:
            if not is_unavailable(error):
                raise
            _log.warning(message, extra={"outbox_id": row_id, "error": str(error)})

    @contextmanager
    def _span(self, row: Any) -> Iterator[trace.Span]:
        """The consumer's span: continues the trace of whoever put the row, or links to it when that is long ago."""
        origin = telemetry.extract(row.context)
        links = []
        if row.age > NEW_TRACE_AFTER:
            links = [Link(trace.get_current_span(origin).get_span_context())]
            origin = trace.set_span_in_context(trace.INVALID_SPAN, origin)
        attributes = {
            "messaging.system": "dramatiq",
            "messaging.operation.type": "process",
            "messaging.destination.name": self._queue,
            "messaging.message.id": row.id,
            "meterscope.job.attempt": row.attempts,
        }
        token = otel_context.attach(origin)
        try:
            with self._tracer.start_as_current_span(
                f"process {row.job}", kind=SpanKind.CONSUMER, attributes=attributes, links=links
            ) as span:
                yield span
        finally:
            otel_context.detach(token)

    def _labels(self, spec: JobSpec, status: str) -> dict[str, str]:
        return {"queue": self._queue, "job_name": spec.name, "status": status}


def backoff(spec: JobSpec, attempt: int) -> timedelta:
    """Return the wait after a failed attempt (1, 2, …): doubled each time, bounded, a quarter more or less."""
    shortest, longest = spec.backoff
    wait: timedelta = min(longest, shortest * 2 ** min(attempt - 1, 30))
    return wait * random.uniform(0.75, 1.25)


def _fields(job: Job) -> dict[str, Any]:
    return {"job": job.name, "outbox_id": job.id, "aggregate": job.aggregate, "attempt": job.attempt}
