"""What is deleted after its time."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import sqlalchemy as sa

from services.kit.outbox import Jobs
from services.kit.tables import outbox, requests
from services.kit.worker import Worker
from tests.eventually import eventually
from tests.kit.conftest import SETTINGS, Store


def test_done_rows_and_requests_past_their_retention_are_deleted(store: Store, work: Callable[..., Worker]) -> None:
    long_ago, lately = sa.func.now() - timedelta(days=8), sa.func.now() - timedelta(days=6)
    expired, recent, dead, waiting = (store.put(job="other") for _ in range(4))
    store.change(expired, state="DONE", finished_at=long_ago)
    store.change(recent, state="DONE", finished_at=lately)
    store.change(dead, state="DEAD", finished_at=long_ago)
    store.change(waiting, created_at=long_ago)
    with store.database.transaction() as conn:
        for request_id, created_at in (("expired", long_ago), ("recent", lately)):
            values = {"method": "M", "request_id": request_id, "digest": b"d", "created_at": created_at}
            conn.execute(sa.insert(requests).values(values))

    def kept() -> tuple[set[str], set[str]]:
        with store.database.transaction() as conn:
            rows = conn.execute(sa.select(outbox.c.id).where(outbox.c.job == "other")).scalars()
            return set(rows), set(conn.execute(sa.select(requests.c.request_id)).scalars())

    week = timedelta(days=7)
    work(Jobs(), settings=replace(SETTINGS, outbox_retention=week, request_retention=week))
    eventually(lambda: kept() == ({recent, dead, waiting}, {"recent"}))
