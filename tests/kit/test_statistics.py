"""Gauges of a service's jobs, and the counters of their runs."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from services.kit.outbox import Job, Jobs, Postpone
from services.kit.periodic import Periodic
from services.kit.statistics import JobStatistics
from services.kit.tables import leases, outbox, schedules
from services.kit.worker import Worker
from tests.eventually import eventually
from tests.kit.conftest import Store
from tests.kit.measured import points

OFTEN = timedelta(milliseconds=100)


@contextmanager
def reading(store: Store, *periodic: Periodic) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=JobStatistics(store.database, periodic, every=OFTEN).run, args=(stop,))
    thread.start()
    yield
    stop.set()
    thread.join()


def gauges(store: Store, reader: InMemoryMetricReader) -> dict[str, int]:
    data = reader.get_metrics_data()
    queue = {"queue": store.database.service}
    return {
        name: point.value
        for name in ("queued", "stuck", "dead")
        for point in points(data, f"billing.jobs.{name}", queue)
    }


def test_rows_are_counted_as_queued_stuck_and_dead(store: Store, metric_reader: InMemoryMetricReader) -> None:
    ids = [store.put() for _ in range(5)]
    six_minutes_ago = sa.func.now() - timedelta(minutes=6)
    store.change(ids[0], state="DONE")
    store.change(ids[1], state="DEAD")
    store.change(ids[2], due_at=six_minutes_ago)
    store.change(ids[3], due_at=six_minutes_ago, state="RUNNING")
    with reading(store):
        # Two that are stuck and one that is not wait or run.
        eventually(lambda: gauges(store, metric_reader) == {"queued": 3, "stuck": 2, "dead": 1})
        with store.database.transaction() as conn:
            conn.execute(sa.delete(outbox))
        eventually(lambda: gauges(store, metric_reader) == {"queued": 0, "stuck": 0, "dead": 0})


def test_a_process_that_loses_the_lease_reports_nothing(store: Store, metric_reader: InMemoryMetricReader) -> None:
    with reading(store):
        eventually(lambda: gauges(store, metric_reader))
        with store.database.transaction() as conn:
            conn.execute(sa.update(leases).values(holder="another", expires_at=sa.func.now() + timedelta(hours=1)))
        eventually(lambda: gauges(store, metric_reader) == {})


def test_heartbeats_are_unix_seconds(store: Store, metric_reader: InMemoryMetricReader) -> None:
    done, never, gone = (f"{what} of {store.database.service}" for what in ("dunning", "a new one", "an old one"))
    at = datetime(2026, 1, 1, tzinfo=UTC)
    with store.database.transaction() as conn:
        for name, succeeded in ((done, at), (never, None), (gone, at)):
            conn.execute(sa.insert(schedules).values(name=name, job="dunning", succeeded_at=succeeded))

    def shown(instrument: str) -> dict[str, float]:
        found = points(metric_reader.get_metrics_data(), instrument, {})
        names = (done, never, gone)
        return {each.attributes["job_name"]: each.value for each in found if each.attributes["job_name"] in names}

    periodic = [Periodic(name=name, every=timedelta(minutes=15), job="dunning") for name in (done, never)]
    with reading(store, *periodic):
        # 2026-01-01T00:00:00Z: 56 years of which 14 were leap years, 20,454 days of 86,400 s. One that never came
        # through is missing as well; one that is not run any more is not.
        eventually(lambda: shown("billing.last_job_timestamp") == {done: 1_767_225_600, never: 0})
        assert shown("billing.job.interval") == {done: 900, never: 900}


def test_runs_are_counted_by_how_they_ended(
    store: Store, work: Callable[..., Worker], metric_reader: InMemoryMetricReader
) -> None:
    def end_in_every_way(job: Job) -> None:
        if job.payload.get("fails"):
            raise RuntimeError("always")
        if job.payload.get("later") and store.row(job.id).due_at == store.row(job.id).created_at:
            raise Postpone(timedelta(milliseconds=1))

    def counted() -> dict[str, int]:
        found = points(metric_reader.get_metrics_data(), "billing.jobs", {"queue": service, "job_name": "work"})
        return {point.attributes["status"]: point.value for point in found}

    service = store.database.service
    jobs = Jobs()
    backoff = (timedelta(milliseconds=1), timedelta(milliseconds=1))
    jobs.register("work", end_in_every_way, max_attempts=2, backoff=backoff)
    work(jobs)
    # Counters begin at zero, so that the first failure is a rise.
    assert counted() == {"success": 0, "failed": 0, "dead": 0, "postponed": 0, "lost": 0}
    ids = [store.put(), store.put(later=True), store.put(fails=True)]
    eventually(lambda: [store.state(row_id) for row_id in ids] == ["DONE", "DONE", "DEAD"])
    eventually(lambda: counted() == {"success": 2, "failed": 1, "dead": 1, "postponed": 1, "lost": 0})
    durations = points(
        metric_reader.get_metrics_data(), "billing.job.processing.duration", {"queue": service, "status": "success"}
    )
    assert {1, 5, 30, 300} <= set(durations[0].explicit_bounds)
