"""The client SDK with the real usage service: PostgreSQL away while events are sent, limits, reservations."""

import asyncio
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import grpc
import psycopg
import pytest
from eventually import eventually
from google.type import decimal_pb2
from psycopg import sql

from meterscope import AsyncClient, CallFailed, Check, Client, Event, LimitCheck, LimitFault, Outcome
from meterscope.usage.v1 import limit_service_pb2 as limits_pb
from meterscope.usage.v1 import (
    limit_service_pb2_grpc,
    meter_service_pb2_grpc,
    usage_service_pb2,
    usage_service_pb2_grpc,
)
from meterscope.usage.v1 import meter_service_pb2 as meters_pb
from services.kit.embedded import EmbeddedPostgres, start_postgres
from services.kit.migrate import migrate
from services.kit.settings import read
from services.usage.__main__ import MIGRATIONS, build_server, build_worker
from services.usage.settings import Settings

CUSTOMER = "cus_sdk"
DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def own_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """A PostgreSQL that only this module stops."""
    server = start_postgres(tmp_path_factory.mktemp("own"), durable=False)
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE sdk OWNER usage"))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def usage(own_postgres: EmbeddedPostgres, redis_url: str) -> Iterator[str]:
    """The usage service with its worker, one meter and one limited customer; gives the address."""
    settings = read(
        Settings,
        {
            "DATABASE_URL": own_postgres.url("sdk", "usage"),
            "REDIS_URL": redis_url,
            "METERSCOPE_USAGE_ADDRESS": "127.0.0.1:0",
            "METERSCOPE_USAGE_WORKER_ADDRESS": "127.0.0.1:0",
            "METERSCOPE_ALERTS_ADDRESS": "127.0.0.1:1",
            "METERSCOPE_ENVIRONMENT": "test",
        },
    )
    migrate(settings.database_url, settings.database_schema, MIGRATIONS, "usage")
    server, worker = build_server(settings), build_worker(settings, lease=timedelta(seconds=1))
    address = f"127.0.0.1:{server.start()}"
    worker.start()
    with grpc.insecure_channel(address) as channel:
        meter = meters_pb.Meter(id="n", event_type="t", aggregation=meters_pb.AGGREGATION_SUM, quantity="n")
        meter_service_pb2_grpc.MeterServiceStub(channel).CreateMeter(meters_pb.CreateMeterRequest(meter=meter))
        limit = limits_pb.Limit(meter="n", limit=decimal_pb2.Decimal(value="1000"), kind=limits_pb.LIMIT_KIND_HARD)
        for customer in (CUSTOMER, "cus_limited"):
            limit_service_pb2_grpc.LimitServiceStub(channel).PutEntitlements(
                limits_pb.PutEntitlementsRequest(
                    customer_id=customer,
                    revision=1,
                    time_zone="UTC",
                    has_plan=True,
                    limits=[limit],
                    request_id=f"put-{customer}",
                )
            )
    yield address
    worker.stop()
    server.stop()


def total(address: str, customer: str) -> str:
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    request = usage_service_pb2.QueryUsageRequest(customer_id=customer, meter="n")
    request.start_time.FromDatetime(today - DAY)
    request.end_time.FromDatetime(today + 2 * DAY)
    with grpc.insecure_channel(address) as channel:
        return usage_service_pb2_grpc.UsageServiceStub(channel).QueryUsage(request).total.value


def test_postgresql_is_away_for_seconds_and_every_event_counts_once(
    usage: str, own_postgres: EmbeddedPostgres, tmp_path: Path
) -> None:
    sent = 0
    going = threading.Event()
    going.set()
    with Client(
        usage, source="sdk", spool=tmp_path, spool_after=timedelta(milliseconds=500), timeout=timedelta(seconds=2)
    ) as client:

        def state() -> None:
            nonlocal sent
            while going.is_set():
                client.track("t", customer_id=CUSTOMER, quantities={"n": Decimal("0.5")})
                sent += 1
                time.sleep(0.002)

        thread = threading.Thread(target=state)
        thread.start()
        eventually(lambda: client.counts.get(Outcome.ACCEPTED, 0) > 100)
        own_postgres.stop()
        eventually(lambda: client.spooled > 300)
        own_postgres.start()
        eventually(lambda: client.spooled == 0)
        going.clear()
        thread.join()
        client.flush(timedelta(seconds=30))
    counts = client.counts
    # What was committed while its answer was lost comes back as a duplicate.
    assert counts.get(Outcome.ACCEPTED, 0) + counts.get(Outcome.DUPLICATE, 0) == sent
    assert set(counts) <= {Outcome.ACCEPTED, Outcome.DUPLICATE}
    expected = f"{sent / 2:g}" if sent % 2 == 0 else f"{sent // 2}.5"
    assert total(usage, CUSTOMER) == expected


def test_limits_are_checked_and_quota_is_reserved(usage: str) -> None:
    with Client(usage, source="sdk") as client:
        answer = client.check_limit("cus_limited", "n", "400", timeout=timedelta(seconds=10))
        assert (answer.allowed, answer.limit, answer.kind, answer.meter) == (True, Decimal(1000), "HARD", "n")
        reserved = client.reserve("cus_limited", "n", Decimal("999.5"), ttl=timedelta(minutes=1))
        assert (reserved.state, reserved.quantity) == ("OPEN", Decimal("999.5"))
        with pytest.raises(CallFailed) as refused:
            client.reserve("cus_limited", "n", 1)
        assert (refused.value.code, refused.value.reason) == ("RESOURCE_EXHAUSTED", "LIMIT_REACHED")
        assert refused.value.metadata["limit"] == "1000"
        assert client.release(reserved).state == "RELEASED"
        assert client.release(reserved).state == "RELEASED"
        mine = client.reserve("cus_limited", "n", 1)
        event = client.track("t", customer_id="cus_limited", quantities={"n": 1})
        assert client.commit(mine, event).state == "COMMITTED"
        assert client.commit(mine, event).state == "COMMITTED"
        good, bad = client.check_limits([Check("cus_limited", "n"), Check("cus_nobody", "n")])
    assert isinstance(good, LimitCheck)
    assert isinstance(bad, LimitFault)
    assert (good.allowed, bad.reason) == (True, "CUSTOMER_NOT_FOUND")


def test_a_question_that_fails_says_how(usage: str) -> None:
    with Client(usage) as client, pytest.raises(CallFailed) as unknown:
        client.check_limit("cus_nobody", "n", timeout=timedelta(seconds=10))
    assert unknown.value.code == "NOT_FOUND"
    with Client("127.0.0.1:1") as client, pytest.raises(CallFailed) as away:
        client.check_limit("cus_nobody", "n")
    assert away.value.code == "UNAVAILABLE"


def test_the_asyncio_client_does_the_same(usage: str) -> None:
    async def run() -> None:
        async with AsyncClient(usage, source="aio", max_batch_events=3) as client:
            for number in range(10):
                await client.track("t", customer_id="cus_limited", quantities={"n": number})
            await client.flush(timedelta(seconds=20))
            assert client.counts == {Outcome.ACCEPTED: 10}
            results = await client.ingest([Event(type="t", customer_id="cus_limited", quantities={"n": -1})])
            assert [(each.outcome, each.field) for each in results] == [(Outcome.REJECTED, "quantities.n")]
            reserved = await client.reserve("cus_limited", "n", 2)
            event = await client.track("t", customer_id="cus_limited", quantities={"n": 2})
            assert (await client.commit(reserved, event)).state == "COMMITTED"
            assert (await client.release(await client.reserve("cus_limited", "n", 2))).state == "RELEASED"
            answer = await client.check_limit("cus_limited", "n", timeout=timedelta(seconds=10))
            assert answer.allowed
            (again,) = await client.check_limits([Check("cus_limited", "n")])
            assert isinstance(again, LimitCheck)
            with pytest.raises(CallFailed):
                await client.check_limit("cus_nobody", "n", timeout=timedelta(seconds=10))

    asyncio.run(run())
