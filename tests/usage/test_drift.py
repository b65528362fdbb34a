"""Totals are recounted from raw events all the time: what differs is seen, what is under way is not taken for it."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from eventually import eventually
from measured_worker import measured_worker, points
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from usage_harness import Alerts, Client, cancel, event, utc

from meterscope.usage.v1 import meter_service_pb2 as pb
from services.kit.db import Database
from services.kit.outbox import Outbox
from services.kit.settings import read
from services.usage.__main__ import now
from services.usage.settings import Settings
from services.usage.usecases.drift import DriftCheck

pytestmark = pytest.mark.usefixtures("meters", "worker")

Sql = psycopg.Connection[tuple[Any, ...]]

IN_EU = pb.MeterFilter(attribute="region", operator=pb.FILTER_OPERATOR_EQUALS, values=["eu"])
NOON = utc(2026, 10, 5, 12)


@pytest.fixture(scope="module")
def settings(environment: dict[str, str]) -> Settings:
    return read(Settings, environment | {"METERSCOPE_USAGE_DRIFT_SECONDS": "0.2"})


@pytest.fixture
def check(migrated: Settings) -> Iterator[Callable[[], int]]:
    database = Database(migrated.database_url, schema=migrated.database_schema, service="usage")
    yield DriftCheck(database, Outbox(database), now, tries=10).run
    database.dispose()


@pytest.fixture(scope="module")
def worker(migrated: Settings) -> Iterator[InMemoryMetricReader]:
    """The worker, as what reads its metrics."""
    with measured_worker(migrated) as reader:
        yield reader


def drift(reader: InMemoryMetricReader) -> list[float]:
    return [value for _, value in points(reader, "billing.integrity.totals_drift")]


def signals(alerts: Alerts, customer: str) -> list[str]:
    return [
        request.fingerprint
        for request in alerts.raised.values()
        if request.customer_id == customer and request.type == "system_error"
    ]


@pytest.fixture(scope="module", autouse=True)
def rich_meters(client: Client) -> None:
    """What is more than a count or a sum: values, groups, filters."""
    kind, quantity = {"event_type": "http.request"}, {"quantity": "bytes"}
    for meter in (
        pb.Meter(id="clients", aggregation=pb.AGGREGATION_UNIQUE, attribute="client", **kind),
        pb.Meter(id="largest", aggregation=pb.AGGREGATION_MAX, group_by=["region"], **kind, **quantity),
        pb.Meter(id="newest", aggregation=pb.AGGREGATION_LATEST, **kind, **quantity),
        pb.Meter(id="average", aggregation=pb.AGGREGATION_AVG, filters=[IN_EU], **kind, **quantity),
    ):
        client.meters.CreateMeter(pb.CreateMeterRequest(meter=meter))


# What is put back after a test.
KEPT = ("bucket_totals", "bucket_values", "events")
WRONG = {
    "a value that is lost": "DELETE FROM bucket_values WHERE {mine}",
    "a group's largest": "UPDATE bucket_totals SET max = max + 1 WHERE {mine} AND max IS NOT NULL",
    "a sum": "UPDATE bucket_totals SET sum = sum + 1 WHERE {mine} AND meter = (SELECT number FROM meters WHERE id = 'bytes')",
    "a bucket that is lost": "DELETE FROM bucket_totals WHERE {mine}",
    "a bucket of nothing": "INSERT INTO bucket_totals (customer, meter, start_time, seal, group_key, count, sum)"
    " SELECT customer, meter, start_time + interval '5 minutes', seal, group_key, 1, 0 FROM bucket_totals WHERE {mine}"
    " LIMIT 1",
    "an event that is lost": "DELETE FROM events WHERE customer = (SELECT number FROM customers WHERE id = %(id)s)"
    " AND time < '2026-10-05 12:05Z'",
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_total_that_is_wrong_is_seen_and_told_once(
    client: Client, sql: Sql, alerts: Alerts, worker: InMemoryMetricReader, wrong: str
) -> None:
    customer = client.put_customer()
    client.ingest(
        *[
            event(
                customer,
                time=NOON + timedelta(minutes=6 * n),
                quantities={"bytes": str(n)},
                attributes={"client": f"c{n % 3}", "region": "eu" if n % 2 else "us"},
            )
            for n in range(10)
        ]
    )
    eventually(lambda: client.total(customer, "bytes") == 45)
    eventually(lambda: drift(worker) == [0])
    mine = "customer = (SELECT number FROM customers WHERE id = %(id)s) AND start_time = '2026-10-05 12:00Z'"
    keep = "CREATE TABLE kept_{0} AS SELECT * FROM {0}"
    for table in KEPT:
        sql.execute(keep.format(table))

    assert sql.execute(WRONG[wrong].format(mine=mine), {"id": customer}).rowcount > 0

    fingerprint = f"totals_drift:{customer}:2026-10-05T12:00:00Z"
    eventually(lambda: signals(alerts, customer) == [fingerprint])
    eventually(lambda: drift(worker) == [1])
    # Mended, it is no drift any more, and was told once.
    with sql.transaction():
        for table in KEPT:
            for statement in ("DELETE FROM {0}", "INSERT INTO {0} SELECT * FROM kept_{0}", "DROP TABLE kept_{0}"):
                sql.execute(statement.format(table))
    eventually(lambda: drift(worker) == [0])
    assert signals(alerts, customer) == [fingerprint]


def test_beside_ingest_corrections_seals_and_new_edges_nothing_differs(
    client: Client, sql: Sql, check: Callable[[], int]
) -> None:
    customers = [client.put_customer() for _ in range(4)]

    def load(customer: str) -> None:
        for turn in range(15):
            sent = [
                event(
                    customer,
                    time=NOON + timedelta(seconds=97 * (20 * turn + n)),
                    quantities={"bytes": str(n)},
                    attributes={"client": f"c{n % 7}", "region": "eu" if n % 2 else "us"},
                )
                for n in range(20)
            ]
            client.ingest(*sent)
            cancel(client, sent[3])
            if turn == 5:
                client.put_customer(customer, revision=2, periods=[(NOON + timedelta(minutes=37), utc(2026, 12, 1))])
            if turn == 9:
                client.seal(customer, utc(2026, 10, 1), NOON + timedelta(hours=1, minutes=7))

    with ThreadPoolExecutor(len(customers)) as pool:
        loads = [pool.submit(load, customer) for customer in customers]
        # One that counts what was stored before it, too.
        back_dated = pb.Meter(
            id="all-bytes", event_type="http.request", aggregation=pb.AGGREGATION_SUM, quantity="bytes"
        )
        back_dated.count_from.FromDatetime(utc(2026, 10, 1))
        client.meters.CreateMeter(pb.CreateMeterRequest(meter=back_dated))
        while not all(done.done() for done in loads):
            assert check() == 0
        for done in loads:
            done.result()
    # 15 times 20, without the 15 that were cancelled.
    for customer in customers:
        eventually(lambda: client.total(customer, "requests") == 285)  # noqa: B023 - called at once
    for _ in range(10):
        assert check() == 0
    assert sql.execute("SELECT * FROM drifts").fetchall() == []
