"""A period whose billing ends the worker's process at every attempt."""

import sqlalchemy as sa
from billing_harness import Client, Clock
from billing_peers import Peers

from meterscope.billing.v1 import bill_run_service_pb2 as pb
from services.billing.__main__ import build_worker
from services.billing.settings import Settings
from services.kit.db import Database
from services.kit.tables import outbox


def test_it_fails_and_holds_nothing_up(
    client: Client, peers: Peers, database: Database, settings: Settings, clock: Clock
) -> None:
    customer = client.customer()
    client.subscribe(customer, client.plan(), "2026-04-30T18:30")
    started = client.start_bill_run("2026-05-31T18:30")
    # All attempts are begun, and none of them has ended.
    begun = sa.update(outbox).where(outbox.c.job == "bill_period").values(attempts=settings.bill_attempts)
    with database.transaction() as conn:
        conn.execute(begun)

    worker = build_worker(settings, clock=clock)
    worker.start()
    failed = client.ended(started)
    asked = list(peers.usage.seals)
    again = client.bill("2026-05-31T18:30")
    worker.stop()

    assert (failed.state, failed.failed, asked) == (pb.BILL_RUN_STATE_PARTLY_FAILED, 1, [])
    assert "the process ended in the midst of the last of 2 attempts" in failed.failures[0].message
    assert (again.state, again.invoiced) == (pb.BILL_RUN_STATE_SUCCEEDED, 1)
