"""A logical dump, restored into a new cluster whose transaction ids begin anew, keeps every total and every identity."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import grpc
import psycopg
import pytest
from eventually import eventually
from usage_harness import Client, event, totals, utc

from meterscope.usage.v1 import event_service_pb2 as pb
from services.kit.channel import open_channel
from services.kit.db import Database
from services.kit.embedded import EmbeddedPostgres, start_postgres
from services.kit.embedded.binaries import postgres_program
from services.usage.__main__ import build_server, build_worker
from services.usage.settings import Settings
from services.usage.store import rollup, waiting

START, AUGUST, SEPTEMBER = utc(2026, 7, 1), utc(2026, 8, 1), utc(2026, 9, 1)


@pytest.fixture(scope="module")
def new_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    server = start_postgres(tmp_path_factory.mktemp("new"), durable=False)
    yield server
    server.stop()


@contextmanager
def serving(settings: Settings) -> Iterator[Client]:
    server = build_server(settings)
    with open_channel(f"127.0.0.1:{server.start()}", settings.kit) as channel:
        yield Client.on(channel)
    server.stop()


@contextmanager
def rolling_up(settings: Settings) -> Iterator[None]:
    worker = build_worker(settings, lease=timedelta(seconds=1))
    worker.start()
    yield
    worker.stop()


def move(source: str, target: str, file: Path) -> None:
    """Dump a database and restore it into an empty one."""
    subprocess.run([postgres_program("pg_dump"), "--format=custom", f"--file={file}", source], check=True)
    subprocess.run(
        [postgres_program("pg_restore"), "--no-owner", "--exit-on-error", f"--dbname={target}", file], check=True
    )


def test_a_dump_restored_into_a_new_cluster_keeps_every_total(
    migrated: Settings, new_cluster: EmbeddedPostgres, tmp_path: Path
) -> None:
    sent = [
        event("", id=f"r{n}", time=START + timedelta(hours=7 * n), quantities={"bytes": str(n)}) for n in range(200)
    ]
    with serving(migrated) as client:
        client.create_meter("requests")
        client.create_meter("bytes", quantity="bytes")
        customers = [client.put_customer(limits={"requests": "150"}, thresholds=[80]) for _ in range(3)]
        with rolling_up(migrated):
            for customer in customers:
                client.ingest(*of(customer, sent[:150]))
                assert eventually(lambda: client.total(customer, "requests") == 150)  # noqa: B023 - called at once
            sealed = totals(client.seal(customers[0], START, AUGUST))
            # Late for the seal, and one that nobody is known for.
            client.ingest(event(customers[0], id="late", time=START, quantities={"bytes": "1000"}))
            client.ingest(event("nobody", id="held"))
            eventually(lambda: client.total(customers[0], "requests") == 151)
        # These are stored, and in no total yet when the dump is made.
        for customer in customers:
            client.ingest(*of(customer, sent[150:]))

    target = new_cluster.url("usage", "usage")
    move(migrated.database_url, target, tmp_path / "usage.dump")
    restored = replace(migrated, database_url=target)
    with serving(restored) as client:
        # Until the rollup has taken note nobody may write: ids would come in the wrong order.
        with pytest.raises(grpc.RpcError) as caught:
            client.ingest(event(customers[0], id="early"))
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        with rolling_up(restored):
            eventually(lambda: is_writable(client, customers[0]))
            for customer in customers:
                # What was acknowledged before is known.
                assert client.ingest(*of(customer, sent)).duplicate == 200
                assert client.ingest(event(customer, id="new", quantities={"bytes": "5"})).accepted == 1
            assert client.ingest(event(customers[0], id="late", time=START, quantities={"bytes": "1"})).conflict == 1

            # 0 + 1 + … + 199 = 199 * 200 / 2, and the new one's 5; the first customer has the late 1000 besides.
            expected = [Decimal(19_900 + 5 + late) for late in (1000, 0, 0)]
            eventually(lambda: [client.total(customer, "bytes") for customer in customers] == expected)
            # 200 and the new one, the late one, the one that came through first.
            assert [client.total(customer, "requests") for customer in customers] == [203, 201, 201]
            # One each 7 h: August begins 744 h after the start, so that 0 to 106 are before it (106 * 7 = 742).
            assert sealed == totals(client.seal(customers[0], START, AUGUST)) == {"requests": 107, "bytes": 5671}
            (late,) = client.seal(customers[0], AUGUST, SEPTEMBER).late_usage
            assert totals(late) == {"requests": 108, "bytes": 6671}
            assert client.events.ListQuarantinedEvents(pb.ListQuarantinedEventsRequest()).total_size == 1
    with psycopg.connect(target) as connection:
        assert connection.execute("SELECT generation FROM usage.rollups").fetchall() == [(2,)]
        query = "SELECT count(*), count(DISTINCT (customer, digest)) FROM usage.events"
        assert connection.execute(query).fetchall() == [(605, 605)]
        # Ids of the old cluster that the new one has yet to come to are nothing that waits.
        connection.execute("UPDATE usage.events SET tx = '4000000000' WHERE generation = 1")
    database = Database(target, schema=migrated.database_schema, service="usage")
    with database.transaction() as conn:
        assert not rollup.has_work(conn)
        assert waiting.customers_and_meters(conn) == []
    database.dispose()


def of(customer: str, events: list[pb.Event]) -> list[pb.Event]:
    """The same events, of a customer."""
    made = []
    for each in events:
        copy = pb.Event()
        copy.CopyFrom(each)
        copy.customer_id = customer
        made.append(copy)
    return made


def is_writable(client: Client, customer: str) -> bool:
    try:
        return client.ingest(event(customer, id="first", quantities={"bytes": "0"})).rejected == 0
    except grpc.RpcError as error:
        assert error.code() is grpc.StatusCode.UNAVAILABLE  # noqa: PT017 - anything else is a fault
        return False
