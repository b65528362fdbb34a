"""The usage service in this process, on real PostgreSQL and Valkey; alerts is a small real gRPC server."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta

import grpc
import psycopg
import pytest
from calling import Caller
from usage_harness import Alerts, Client

from meterscope.alerts.v1 import alert_service_pb2_grpc
from services.kit.channel import open_channel
from services.kit.db import Database
from services.kit.migrate import migrate
from services.kit.settings import read
from services.kit.worker import Worker
from services.usage.__main__ import MIGRATIONS, build_server, build_worker
from services.usage.settings import Settings


@dataclass(frozen=True)
class Peer:
    alerts: Alerts
    address: str


@pytest.fixture(scope="module")
def peer() -> Iterator[Peer]:
    alerts = Alerts()  # type: ignore[abstract] # the other methods answer UNIMPLEMENTED
    server = grpc.server(ThreadPoolExecutor(4))
    alert_service_pb2_grpc.add_AlertServiceServicer_to_server(alerts, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield Peer(alerts, f"127.0.0.1:{port}")
    server.stop(None).wait()


@pytest.fixture(scope="module")
def alerts(peer: Peer) -> Alerts:
    return peer.alerts


@pytest.fixture(scope="module")
def environment(database_url: str, redis_url: str, peer: Peer) -> dict[str, str]:
    """What the service's processes are started with."""
    return {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "METERSCOPE_USAGE_ADDRESS": "127.0.0.1:0",
        "METERSCOPE_USAGE_WORKER_ADDRESS": "127.0.0.1:0",
        "METERSCOPE_ALERTS_ADDRESS": peer.address,
        "METERSCOPE_USAGE_REPLAY_SECONDS": "3600",
        "METERSCOPE_ENVIRONMENT": "test",
    }


@pytest.fixture(scope="module")
def settings(environment: dict[str, str]) -> Settings:
    return read(Settings, environment)


@pytest.fixture(scope="module")
def migrated(settings: Settings) -> Settings:
    migrate(settings.database_url, settings.database_schema, MIGRATIONS, "usage")
    return settings


@pytest.fixture(scope="module")
def channel(migrated: Settings) -> Iterator[grpc.Channel]:
    """A channel to a server of this module's own."""
    server = build_server(migrated)
    with open_channel(f"127.0.0.1:{server.start()}", migrated.kit) as channel:
        yield channel
    server.stop()


@pytest.fixture(scope="module")
def client(channel: grpc.Channel) -> Client:
    """A client of that server."""
    return Client.on(channel)


@pytest.fixture(scope="module")
def worker(migrated: Settings) -> Iterator[Worker]:
    """The rollup and the jobs."""
    worker = build_worker(migrated, lease=timedelta(seconds=1))
    worker.start()
    yield worker
    worker.stop()


@pytest.fixture(scope="module")
def meters(client: Client) -> None:
    """`requests` counts, `bytes` adds up."""
    client.create_meter("requests", unit="requests")
    client.create_meter("bytes", quantity="bytes", unit="By")


@pytest.fixture
def database(migrated: Settings) -> Iterator[Database]:
    """The worker's way to the database."""
    database = Database(migrated.database_url, schema=migrated.database_schema, service="usage", role="worker")
    yield database
    database.dispose()


@pytest.fixture
def sql(migrated: Settings) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """A look into the database from outside."""
    options = f"-c search_path={migrated.database_schema}"
    with psycopg.connect(migrated.database_url, autocommit=True, options=options) as connection:
        yield connection


@pytest.fixture(scope="module")
def caller(channel: grpc.Channel, client: Client) -> Caller:
    """Calls CallRecordService; `calls` counts, `call_seconds` adds billable ones up."""
    client.create_meter("calls", event_type="call.record", unit="calls")
    client.create_meter("call_seconds", event_type="call.record", quantity="billable_seconds", unit="s")
    return Caller(channel)


@pytest.fixture
def customer(client: Client) -> str:
    return client.put_customer()
