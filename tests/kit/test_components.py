"""Whether the database and Redis answer, as a worker sees it."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import redis
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from services.kit.components import Components, redis_answers
from services.kit.embedded import start_valkey
from services.kit.outbox import Jobs
from services.kit.worker import Worker
from tests.eventually import eventually
from tests.kit.measured import points


@contextmanager
def asking(service: str, answers: dict[str, Callable[[], bool]]) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=Components(service, answers, every_seconds=0.05).run, args=(stop,))
    thread.start()
    yield
    stop.set()
    thread.join()


def up(reader: InMemoryMetricReader, name: str) -> list[int]:
    return [point.value for point in points(reader.get_metrics_data(), "billing.component_up", {"component": name})]


def test_redis_is_up_until_it_is_stopped(metric_reader: InMemoryMetricReader, tmp_path: Path) -> None:
    server = start_valkey(tmp_path / "valkey")
    with redis.Redis.from_url(server.url(0), socket_connect_timeout=1) as client:
        with asking("one", {"redis here": lambda: redis_answers(client)}):
            eventually(lambda: up(metric_reader, "redis here") == [1])
            server.stop()
            eventually(lambda: up(metric_reader, "redis here") == [0])
        # A process that has stopped says nothing.
        assert up(metric_reader, "redis here") == []


def test_a_worker_says_whether_its_database_and_redis_answer(
    work: Callable[..., Worker], metric_reader: InMemoryMetricReader
) -> None:
    work(Jobs())
    eventually(lambda: 1 in up(metric_reader, "database"))
    eventually(lambda: 1 in up(metric_reader, "redis"))
