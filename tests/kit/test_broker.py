"""Messages in Valkey: they carry ids, and losing or doubling one does no harm."""

from collections.abc import Callable, Iterator

import pytest
import redis

from services.kit.broker import JobBroker
from services.kit.outbox import Job, Jobs
from services.kit.worker import Worker
from tests.eventually import eventually
from tests.kit.conftest import Store


@pytest.fixture
def jobs() -> Jobs:
    made = Jobs()
    made.register("work", lambda _job: None)
    return made


@pytest.fixture
def broker(store: Store, jobs: Jobs) -> Iterator[JobBroker]:
    made = JobBroker(store.database.service, store.redis_url, jobs, lambda _row_id: None)
    yield made
    made.close()


def test_a_message_carries_the_id_alone_in_the_services_own_keys(store: Store, broker: JobBroker) -> None:
    row_id = store.put(secret="4111 1111 1111 1111")
    broker.send("work", row_id)
    assert broker.waiting() == 1
    with redis.Redis.from_url(store.redis_url, decode_responses=True) as client:
        keys = list(client.scan_iter(match=f"*{store.database.service}*"))
        (message,) = client.hvals(f"meterscope:{broker.queue}:{broker.queue}.msgs")
    assert keys
    assert all(key.startswith(f"meterscope:{store.database.service}:") for key in keys)
    assert row_id in str(message)
    assert "4111" not in str(message)


def test_doubled_and_late_messages_run_nothing(store: Store, broker: JobBroker, work: Callable[..., Worker]) -> None:
    ran: list[Job] = []
    jobs = Jobs()
    jobs.register("work", ran.append)
    work(jobs)
    row_id = store.put()
    eventually(lambda: store.state(row_id) == "DONE")
    for _ in range(3):
        broker.send("work", row_id)
    broker.send("work", "obx_unknown")
    last = store.put()
    eventually(lambda: store.state(last) == "DONE" and broker.waiting() == 0)
    assert [job.id for job in ran] == [row_id, last]


def test_without_redis_sending_fails(jobs: Jobs) -> None:
    broker = JobBroker("nowhere", "redis://127.0.0.1:1/0", jobs, lambda _row_id: None)
    with pytest.raises(redis.RedisError):
        broker.send("work", "obx_1")
    broker.close()
