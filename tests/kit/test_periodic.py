"""Periodic jobs."""

from collections.abc import Callable
from datetime import timedelta

import sqlalchemy as sa

from services.kit.outbox import Job, Jobs
from services.kit.periodic import Periodic
from services.kit.tables import outbox, schedules
from services.kit.worker import Worker
from tests.eventually import eventually
from tests.kit.conftest import Store

Work = Callable[..., Worker]
HOURLY = Periodic("dunning", timedelta(hours=1), "collect")


def rows(store: Store, job: str = "collect") -> list[str]:
    with store.database.transaction() as conn:
        return list(conn.execute(sa.select(outbox.c.state).where(outbox.c.job == job)).scalars())


def schedule(store: Store, name: str = "dunning") -> sa.Row[tuple[object, ...]]:
    """The row, as soon as the worker has made it."""

    def made() -> sa.Row[tuple[object, ...]] | None:
        with store.database.transaction() as conn:
            return conn.execute(sa.select(schedules).where(schedules.c.name == name)).one_or_none()

    row = eventually(made)
    assert row is not None
    return row


def move_back(store: Store, by: timedelta) -> None:
    with store.database.transaction() as conn:
        mine = schedules.c.name == "dunning"
        conn.execute(sa.update(schedules).where(mine).values(next_run_at=schedules.c.next_run_at - by))


def jobs_of(function: Callable[[Job], None]) -> Jobs:
    jobs = Jobs()
    jobs.register("collect", function)
    return jobs


def test_it_runs_at_once_and_then_again_and_again(work: Work) -> None:
    ran: list[Job] = []
    work(jobs_of(ran.append), periodic=[Periodic("dunning", timedelta(milliseconds=200), "collect")])
    eventually(lambda: len(ran) >= 3)
    assert ran[0].payload == {"schedule": "dunning"}
    assert len({job.id for job in ran}) == len(ran)


def test_several_workers_put_one_row_a_run(store: Store, work: Work) -> None:
    ran: list[Job] = []
    for _ in range(3):
        work(jobs_of(ran.append), periodic=[HOURLY])
    eventually(lambda: rows(store) == ["DONE"])
    move_back(store, timedelta(hours=1))
    eventually(lambda: rows(store) == ["DONE", "DONE"])
    assert len(ran) == 2


def test_missed_runs_coalesce_into_one(store: Store, work: Work) -> None:
    ran: list[Job] = []
    work(jobs_of(ran.append), periodic=[HOURLY])
    eventually(lambda: rows(store) == ["DONE"])
    due = schedule(store).next_run_at
    move_back(store, timedelta(hours=5))
    eventually(lambda: rows(store) == ["DONE", "DONE"])
    # The rhythm stays: five hours back and five runs on, of which four were missed.
    assert schedule(store).next_run_at == due
    assert len(ran) == 2


def test_no_further_run_is_put_while_the_last_one_is_open(store: Store, work: Work) -> None:
    jobs = Jobs()
    jobs.register("other", lambda _job: None)
    # Nobody here can run `collect`, so its first row stays open.
    work(jobs, periodic=[HOURLY, Periodic("other", timedelta(hours=1), "other")])
    eventually(lambda: rows(store) == ["QUEUED"])
    due = schedule(store).next_run_at
    move_back(store, timedelta(hours=1))
    eventually(lambda: schedule(store).next_run_at == due)
    assert rows(store) == ["QUEUED"]


def test_only_a_successful_run_moves_the_heartbeat(store: Store, work: Work) -> None:
    heartbeats: list[object] = []

    def fail_once(job: Job) -> None:
        heartbeats.append(schedule(store).succeeded_at)
        if job.attempt == 1:
            raise RuntimeError("not yet")

    work(jobs_of(fail_once), periodic=[HOURLY])
    assert eventually(lambda: schedule(store).succeeded_at)
    assert heartbeats == [None, None]
