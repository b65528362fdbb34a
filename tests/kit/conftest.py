"""A schema with the kit's tables for each test, and workers on it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from services.kit.config import KitSettings
from services.kit.db import Database
from services.kit.outbox import Jobs, Outbox, outbox_tables
from services.kit.settings import read
from services.kit.tables import outbox
from services.kit.worker import Worker

SETTINGS = replace(read(KitSettings, {}), worker_threads=4, grace=timedelta(seconds=5))


@dataclass
class Store:
    """A service's database with the kit's tables and a table of effects."""

    database: Database
    outbox: Outbox
    redis_url: str

    def put(self, job: str = "work", aggregate: str = "", delay: timedelta = timedelta(), **payload: Any) -> str:
        with self.database.transaction() as conn:
            return self.outbox.put(conn, job=job, payload=payload, aggregate=aggregate, delay=delay)

    def effect(self, conn: sa.Connection, text: str) -> None:
        conn.execute(sa.text("INSERT INTO effects VALUES (:text)"), {"text": text})

    def effects(self) -> list[str]:
        with self.database.transaction() as conn:
            return list(conn.execute(sa.text("SELECT text FROM effects ORDER BY seq")).scalars())

    def row(self, row_id: str) -> Any:
        with self.database.transaction() as conn:
            return conn.execute(sa.select(outbox).where(outbox.c.id == row_id)).one()

    def state(self, row_id: str) -> str:
        return str(self.row(row_id).state)

    def change(self, row_id: str, **values: Any) -> None:
        with self.database.transaction() as conn:
            conn.execute(sa.update(outbox).where(outbox.c.id == row_id).values(**values))


@pytest.fixture
def store(database_url: str, redis_url: str, numbers: Iterator[int]) -> Iterator[Store]:
    made = make_store(database_url, redis_url, f"kit_{next(numbers)}")
    yield made
    made.database.dispose()


def make_store(database_url: str, redis_url: str, name: str) -> Store:
    """Create the schema `name` with the kit's tables; the service has that name too."""
    database = Database(database_url, schema=name, service=name)
    metadata = sa.MetaData()
    outbox_tables(metadata)
    sa.Table(
        "effects",
        metadata,
        sa.Column("text", sa.Text),
        sa.Column("seq", sa.BigInteger, sa.Identity(), primary_key=True),
    )
    with database.transaction() as conn:
        conn.execute(sa.schema.CreateSchema(name))
        metadata.create_all(conn)
    return Store(database, Outbox(database), redis_url)


@pytest.fixture
def work(store: Store) -> Iterator[Callable[..., Worker]]:
    """Start workers on the store; they stop with the test."""
    started: list[Worker] = []

    def start(jobs: Jobs, *, on: Store = store, settings: KitSettings = SETTINGS, **rest: Any) -> Worker:
        database = Database(
            on.database.url.render_as_string(hide_password=False),
            schema=on.database.schema,
            service=on.database.service,
            role="worker",
        )
        worker = Worker(
            service=database.service,
            database=database,
            redis_url=on.redis_url,
            jobs=jobs,
            settings=settings,
            address="127.0.0.1:0",
            **{"lease": timedelta(seconds=1), **rest},
        )
        worker.start()
        started.append(worker)
        return worker

    yield start
    for worker in started:
        worker.stop()
