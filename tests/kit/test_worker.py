"""Worker processes: killed, stopped, without their database or their Redis."""

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
import sqlalchemy as sa
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.kit.db import Database
from services.kit.embedded import EmbeddedPostgres, EmbeddedValkey, start_postgres, start_valkey
from services.kit.outbox import Job, Jobs
from services.kit.worker import Worker
from tests.eventually import eventually
from tests.kit.conftest import SETTINGS, Store, make_store

Work = Callable[..., Worker]
Start = Callable[[], subprocess.Popen[bytes]]


@pytest.fixture
def start_process(store: Store) -> Iterator[Start]:
    started: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        url = store.database.url.set(drivername="postgresql").render_as_string(hide_password=False)
        program = [sys.executable, "-m", "tests.kit.worker_program"]
        process = subprocess.Popen([*program, url, store.database.schema, store.redis_url])
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def let_go(store: Store) -> None:
    with store.database.transaction() as conn:
        store.effect(conn, "go")


def test_a_job_whose_process_was_killed_runs_again_and_takes_effect_once(store: Store, start_process: Start) -> None:
    killed = start_process()
    row_id = store.put()
    eventually(lambda: store.effects() == ["began attempt 1"])
    killed.kill()
    killed.wait()
    start_process()
    eventually(lambda: store.state(row_id) == "DONE")
    assert store.effects() == ["began attempt 1", "began attempt 2", "ended attempt 2"]


def test_a_stopped_process_ends_its_running_job_first(store: Store, start_process: Start) -> None:
    stopped = start_process()
    row_id = store.put()
    eventually(lambda: store.effects() == ["began attempt 1"])
    stopped.send_signal(signal.SIGTERM)
    let_go(store)
    assert stopped.wait(20) == 0
    assert store.state(row_id) == "DONE"
    assert store.effects() == ["began attempt 1", "go", "ended attempt 1"]


def test_a_worker_goes_on_when_its_database_was_killed_and_came_back(
    tmp_path: Path, redis_url: str, work: Work
) -> None:
    server = start_postgres(tmp_path, durable=False)
    store = make_store(server.url("usage", "usage"), redis_url, "revived")
    entered = threading.Event()

    def act(job: Job) -> None:
        if job.attempt == 1:
            # Its connection is cut in the midst of the transaction.
            with store.database.transaction() as conn:
                entered.set()
                conn.execute(sa.text("SELECT pg_sleep(4)"))
        with store.database.transaction() as conn:
            store.effect(conn, "done")
            job.finish(conn)

    worker = work(jobs_of(act), on=store)
    row_id = store.put()
    assert entered.wait(20)
    server.kill()
    eventually(lambda: comes_back(server))
    eventually(lambda: store.database.answers() and store.state(row_id) == "DONE")
    later = store.put()
    eventually(lambda: store.state(later) == "DONE")
    assert store.effects().count("done") == 2
    worker.stop()
    store.database.dispose()
    server.stop()


def test_a_worker_goes_on_when_its_redis_was_killed_and_came_back(
    tmp_path: Path, database_url: str, numbers: Iterator[int], work: Work
) -> None:
    server = start_valkey(tmp_path)
    store = make_store(database_url, server.url(), f"kit_{next(numbers)}")
    worker = work(jobs_of(lambda _job: None), on=store)
    before = store.put()
    eventually(lambda: store.state(before) == "DONE")
    server.kill()
    while_away = store.put()
    eventually(lambda: store.state(while_away) in {"QUEUED", "HANDED_OUT"})
    eventually(lambda: comes_back(server))
    eventually(lambda: store.state(while_away) == "DONE")
    worker.stop()
    store.database.dispose()
    server.stop()


def test_a_worker_answers_health_checks(store: Store) -> None:
    database = Database(store.database.url.render_as_string(hide_password=False), schema="x", service="x")
    worker = Worker(
        service="x",
        database=database,
        redis_url=store.redis_url,
        jobs=Jobs(),
        settings=SETTINGS,
        address="127.0.0.1:0",
    )
    port = worker.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        health = health_pb2_grpc.HealthStub(channel)
        answer = health.Check(health_pb2.HealthCheckRequest(), timeout=5)  # type: ignore[attr-defined]
    worker.stop()
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_a_services_own_loop_runs_again_when_it_failed_and_ends_with_the_worker(work: Work) -> None:
    class Rollup:
        name = "rollup"

        def __init__(self) -> None:
            self.runs = 0
            self.ended = False

        def run(self, stop: threading.Event) -> None:
            self.runs += 1
            if self.runs == 1:
                raise RuntimeError("the first run fails")
            self.ended = stop.wait(20)

    rollup = Rollup()
    worker = work(Jobs(), loops=[rollup])
    eventually(lambda: rollup.runs == 2)
    worker.stop()
    assert rollup.ended


def jobs_of(function: Callable[[Job], None]) -> Jobs:
    jobs = Jobs()
    jobs.register("work", function)
    return jobs


def comes_back(server: EmbeddedPostgres | EmbeddedValkey) -> bool:
    """Start it on its port again, which another program's outgoing connection may hold for a moment."""
    try:
        server.start()
    except OSError:
        return False
    return True
