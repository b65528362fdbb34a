"""The outbox end to end: rows in PostgreSQL, messages in Valkey, jobs on a worker's threads."""

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
import redis
import sqlalchemy as sa

from services.kit import notices
from services.kit.outbox import Job, Jobs, LeaseLost, OutboxRowNotDead, OutboxRowNotFound, Postpone, channel
from services.kit.worker import Worker
from tests.eventually import eventually
from tests.kit.conftest import SETTINGS, Store

AT_ONCE = (timedelta(milliseconds=10), timedelta(milliseconds=10))
ONE_THREAD = replace(SETTINGS, worker_threads=1)
Work = Callable[..., Worker]


def jobs_of(function: Callable[[Job], None], **options: object) -> Jobs:
    jobs = Jobs()
    jobs.register("work", function, **{"backoff": AT_ONCE, **options})  # type: ignore[arg-type]
    return jobs


def test_a_job_runs_once_the_transaction_that_put_it_has_committed(store: Store, work: Work) -> None:
    ran: list[Job] = []
    work(jobs_of(ran.append))
    row_id = store.put(invoice_id="inv_1", aggregate="cus_1")
    eventually(lambda: store.state(row_id) == "DONE")
    (job,) = ran
    assert (job.id, job.name, job.aggregate, job.attempt) == (row_id, "work", "cus_1", 1)
    assert job.payload == {"invoice_id": "inv_1"}


def test_a_job_of_a_transaction_that_rolled_back_never_was(store: Store, work: Work) -> None:
    ran: list[str] = []
    work(jobs_of(lambda job: ran.append(job.payload["name"])))
    with pytest.raises(ZeroDivisionError), store.database.transaction() as conn:
        store.outbox.put(conn, job="work", payload={"name": "rolled back"})
        raise ZeroDivisionError
    store.put(name="committed")
    eventually(lambda: ran)
    assert ran == ["committed"]


def test_many_rows_are_put_at_once_and_each_runs_once(store: Store, work: Work) -> None:
    ran: list[int] = []
    work(jobs_of(lambda job: ran.append(job.payload["number"])))
    with store.database.transaction() as conn:
        ids = store.outbox.put_all(conn, job="work", entries=[("", {"number": number}) for number in range(250)])
    eventually(lambda: len(ran) >= 250)
    assert sorted(ran) == list(range(250))
    assert len(set(ids)) == 250


def test_rows_of_one_aggregate_run_in_order_whatever_fails(store: Store, work: Work) -> None:
    ran: list[int] = []

    def fail_first(job: Job) -> None:
        if job.attempt <= 2 and job.payload["number"] % 2 == 0:
            raise RuntimeError("not yet")
        ran.append(job.payload["number"])

    with store.database.transaction() as conn:
        store.outbox.put_all(conn, job="work", entries=[("cus_1", {"number": number}) for number in range(8)])
    work(jobs_of(fail_first))
    eventually(lambda: len(ran) == 8)
    assert ran == list(range(8))


def test_a_failing_row_does_not_hold_up_other_aggregates(store: Store, work: Work) -> None:
    def fail_one(job: Job) -> None:
        if job.aggregate == "cus_1":
            raise RuntimeError("never")

    work(jobs_of(fail_one, backoff=(timedelta(minutes=1), timedelta(minutes=1))))
    stuck = store.put(aggregate="cus_1")
    behind = store.put(aggregate="cus_1")
    other = store.put(aggregate="cus_2")
    eventually(lambda: store.state(other) == "DONE" and store.row(stuck).last_error)
    assert store.state(behind) == "QUEUED"
    assert store.row(stuck).last_error == "RuntimeError: never"


def test_a_row_is_dead_after_its_attempts_and_runs_again_only_when_it_is_sent_again(store: Store, work: Work) -> None:
    broken = threading.Event()
    broken.set()
    attempts: list[int] = []

    def fail_while_broken(job: Job) -> None:
        attempts.append(job.attempt)
        if broken.is_set():
            raise RuntimeError("provider is away")

    work(jobs_of(fail_while_broken, max_attempts=3))
    row_id = store.put(payment_id="pay_1")
    eventually(lambda: store.state(row_id) == "DEAD")
    (dead,) = store.outbox.dead()
    assert attempts == [1, 2, 3]
    assert (dead.id, dead.attempts, dead.last_error) == (row_id, 3, "RuntimeError: provider is away")
    broken.clear()
    store.outbox.resend(row_id)
    eventually(lambda: store.state(row_id) == "DONE")
    assert attempts == [1, 2, 3, 1]
    assert store.outbox.dead() == []


def test_a_dead_row_holds_up_its_aggregate_until_it_is_discarded(store: Store, work: Work) -> None:
    def fail_the_first(job: Job) -> None:
        if job.payload["number"] == 1:
            raise RuntimeError("never")

    work(jobs_of(fail_the_first, max_attempts=1))
    first, second = store.put(aggregate="cus_1", number=1), store.put(aggregate="cus_1", number=2)
    eventually(lambda: store.state(first) == "DEAD")
    assert store.state(second) == "QUEUED"
    store.outbox.discard(first)
    eventually(lambda: store.state(second) == "DONE")


def test_only_dead_rows_are_sent_again(store: Store) -> None:
    row_id = store.put()
    with pytest.raises(OutboxRowNotDead, match="is QUEUED, not DEAD"):
        store.outbox.resend(row_id)
    with pytest.raises(OutboxRowNotFound, match="obx_unknown"):
        store.outbox.discard("obx_unknown")


def test_a_postponed_row_runs_later_and_that_is_no_failure(store: Store, work: Work) -> None:
    attempts: list[int] = []

    def postpone_twice(job: Job) -> None:
        attempts.append(job.attempt)
        if len(attempts) < 3:
            raise Postpone(timedelta(milliseconds=10))

    work(jobs_of(postpone_twice, max_attempts=1))
    row_id = store.put()
    eventually(lambda: store.state(row_id) == "DONE")
    assert attempts == [1, 1, 1]


def test_a_delayed_row_waits_for_its_time(store: Store, work: Work) -> None:
    ran: list[str] = []
    work(jobs_of(lambda job: ran.append(job.id)))
    delayed = store.put(delay=timedelta(hours=1))
    prompt = store.put()
    eventually(lambda: prompt in ran)
    assert store.state(delayed) == "QUEUED"
    store.change(delayed, available_at=sa.func.now())
    eventually(lambda: ran == [prompt, delayed])


def test_the_effect_and_the_mark_are_there_together_or_not_at_all(store: Store, work: Work) -> None:
    def act(job: Job) -> None:
        with store.database.transaction() as conn:
            store.effect(conn, f"attempt {job.attempt}")
            job.finish(conn)
            if job.attempt == 1:
                raise RuntimeError("after the mark, before the commit")

    work(jobs_of(act))
    row_id = store.put()
    eventually(lambda: store.state(row_id) == "DONE")
    assert store.effects() == ["attempt 2"]


def test_a_runner_that_lost_its_lease_writes_nothing(store: Store, work: Work) -> None:
    entered, resume = threading.Event(), threading.Event()
    refused: list[str] = []

    def act(job: Job) -> None:
        if job.attempt == 1:
            entered.set()
            assert resume.wait(20)
        try:
            with store.database.transaction() as conn:
                job.fence(conn)
                store.effect(conn, f"attempt {job.attempt}")
                job.finish(conn)
        except LeaseLost:
            refused.append(f"attempt {job.attempt}")
            raise

    # Long, so that nothing renews it before it is taken away below.
    work(jobs_of(act), lease=timedelta(minutes=1))
    row_id = store.put()
    assert entered.wait(20)
    store.change(row_id, available_at=sa.func.now())
    notices.notify(store.database, channel(store.database))
    eventually(lambda: store.effects() == ["attempt 2"])
    resume.set()
    eventually(lambda: refused)
    assert refused == ["attempt 1"]
    assert store.effects() == ["attempt 2"]
    assert store.state(row_id) == "DONE"


def test_a_job_longer_than_its_lease_keeps_it(store: Store, work: Work) -> None:
    attempts: list[int] = []

    def outlast_the_lease(job: Job) -> None:
        attempts.append(job.attempt)
        with store.database.transaction() as conn:
            started = conn.execute(sa.text("SELECT clock_timestamp()")).scalar_one()
        # Renewed: its end has moved by more than the lease since the start.
        eventually(lambda: store.row(job.id).available_at > started + timedelta(seconds=1))
        job.renew()

    work(jobs_of(outlast_the_lease), lease=timedelta(milliseconds=600))
    row_id = store.put()
    eventually(lambda: store.state(row_id) == "DONE")
    assert attempts == [1]


def test_a_job_past_its_time_limit_is_broken_off(store: Store, work: Work) -> None:
    def never_end(_job: Job) -> None:
        for_ever = threading.Event()
        while not for_ever.wait(0.01):
            pass

    work(jobs_of(never_end, time_limit=timedelta(milliseconds=100), max_attempts=1))
    row_id = store.put()
    eventually(lambda: store.state(row_id) == "DEAD")
    assert store.row(row_id).last_error.startswith("TimeLimitExceeded")


def test_rows_whose_messages_a_flushed_redis_forgot_are_handed_out_again(store: Store, work: Work) -> None:
    entered, resume = threading.Event(), threading.Event()
    ran: list[str] = []

    def act(job: Job) -> None:
        if "blocks" in job.payload:
            entered.set()
            assert resume.wait(20)
        ran.append(job.id)

    work(jobs_of(act), settings=ONE_THREAD)
    store.put(blocks=True)
    assert entered.wait(20)
    # Behind the one that blocks the only thread, these are fetched or wait in Valkey.
    waiting = [store.put() for _ in range(20)]
    eventually(lambda: all(store.state(row_id) == "HANDED_OUT" for row_id in waiting))
    with redis.Redis.from_url(store.redis_url) as client:
        client.flushdb()
    resume.set()
    eventually(lambda: all(store.state(row_id) == "DONE" for row_id in waiting))
    assert sorted(ran[1:]) == sorted(waiting)


def test_a_row_of_a_job_that_no_worker_knows_waits_for_one_that_does(store: Store, work: Work) -> None:
    work(jobs_of(lambda _job: None))
    unknown, known = store.put(job="later"), store.put()
    eventually(lambda: store.state(known) == "DONE")
    assert store.state(unknown) == "QUEUED"
    jobs = Jobs()
    jobs.register("later", lambda _job: None)
    work(jobs)
    eventually(lambda: store.state(unknown) == "DONE")


def test_several_workers_share_the_rows(store: Store, work: Work) -> None:
    ran: list[int] = []
    jobs = jobs_of(lambda job: ran.append(job.payload["number"]))
    for _ in range(3):
        work(jobs)
    with store.database.transaction() as conn:
        store.outbox.put_all(conn, job="work", entries=[(f"cus_{n % 5}", {"number": n}) for n in range(100)])
    eventually(lambda: len(ran) >= 100)
    assert sorted(ran) == list(range(100))
    for customer in range(5):
        assert [n for n in ran if n % 5 == customer] == list(range(customer, 100, 5))


def test_a_job_is_registered_once() -> None:
    jobs = jobs_of(lambda _job: None)
    with pytest.raises(ValueError, match="job work is registered twice"):
        jobs.register("work", lambda _job: None)
