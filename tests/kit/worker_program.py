"""A worker process for the tests that kill one: its first attempt waits for a row `go`, its effect is that it ended."""

import sys
from datetime import timedelta

import sqlalchemy as sa

from services.kit.db import Database
from services.kit.outbox import Job, Jobs
from services.kit.worker import Worker
from tests.eventually import eventually
from tests.kit.conftest import SETTINGS


def main(url: str, schema: str, redis_url: str) -> None:
    database = Database(url, schema=schema, service=schema, role="worker")

    def write(conn: sa.Connection, text: str) -> None:
        conn.execute(sa.text("INSERT INTO effects VALUES (:text)"), {"text": text})

    def may_go() -> bool:
        with database.transaction() as conn:
            return conn.execute(sa.text("SELECT 1 FROM effects WHERE text = 'go'")).one_or_none() is not None

    def act(job: Job) -> None:
        with database.transaction() as conn:
            write(conn, f"began attempt {job.attempt}")
        if job.attempt == 1:
            eventually(may_go)
        with database.transaction() as conn:
            write(conn, f"ended attempt {job.attempt}")
            job.finish(conn)

    jobs = Jobs()
    jobs.register("work", act)
    Worker(
        service=schema,
        database=database,
        redis_url=redis_url,
        jobs=jobs,
        settings=SETTINGS,
        address="127.0.0.1:0",
        lease=timedelta(seconds=1),
    ).run_until_signal()


if __name__ == "__main__":
    main(*sys.argv[1:])
