"""The billing service in this process, on real PostgreSQL and Valkey; its peers are one small real gRPC server."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from billing_harness import Client, Clock, utc
from billing_peers import Alerts, Payments, Peers, Usage

from meterscope.alerts.v1 import alert_service_pb2_grpc
from meterscope.payments.v1 import payment_service_pb2_grpc
from meterscope.usage.v1 import (
    event_service_pb2_grpc,
    limit_service_pb2_grpc,
    meter_service_pb2_grpc,
    usage_service_pb2_grpc,
)
from services.billing.__main__ import MIGRATIONS, build_server, build_worker
from services.billing.settings import Settings
from services.kit.channel import open_channel
from services.kit.db import Database
from services.kit.migrate import migrate
from services.kit.settings import read


@pytest.fixture(scope="module")
def peers() -> Iterator[Peers]:
    usage = Usage()  # type: ignore[abstract] # the other methods answer UNIMPLEMENTED
    payments = Payments()  # type: ignore[abstract] # likewise
    alerts = Alerts()  # type: ignore[abstract] # likewise
    server = grpc.server(ThreadPoolExecutor(4))
    limit_service_pb2_grpc.add_LimitServiceServicer_to_server(usage, server)
    usage_service_pb2_grpc.add_UsageServiceServicer_to_server(usage, server)
    event_service_pb2_grpc.add_EventServiceServicer_to_server(usage, server)
    meter_service_pb2_grpc.add_MeterServiceServicer_to_server(usage, server)
    payment_service_pb2_grpc.add_PaymentServiceServicer_to_server(payments, server)
    alert_service_pb2_grpc.add_AlertServiceServicer_to_server(alerts, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield Peers(usage, payments, alerts, f"127.0.0.1:{port}")
    server.stop(None).wait()


@pytest.fixture(scope="module")
def environment(database_url: str, redis_url: str, peers: Peers) -> dict[str, str]:
    """What the service's processes are started with: the waits of minutes are fractions of a second."""
    return {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "METERSCOPE_BILLING_ADDRESS": "127.0.0.1:0",
        "METERSCOPE_BILLING_WORKER_ADDRESS": "127.0.0.1:0",
        "METERSCOPE_USAGE_ADDRESS": peers.address,
        "METERSCOPE_PAYMENTS_ADDRESS": peers.address,
        "METERSCOPE_ALERTS_ADDRESS": peers.address,
        "METERSCOPE_BILL_ATTEMPTS": "2",
        "METERSCOPE_BILL_RETRY_SECONDS": "0.05",
        "METERSCOPE_COLLECT_RETRY_SECONDS": "0.1",
        "METERSCOPE_FISCAL_YEAR_MONTH": "4",
        "METERSCOPE_SELLER_TIME_ZONE": "Asia/Kolkata",
        "METERSCOPE_ENVIRONMENT": "test",
        "JAEGER_URL": "http://traces.example/",
    }


@pytest.fixture(scope="module")
def settings(environment: dict[str, str]) -> Settings:
    settings = read(Settings, environment)
    migrate(settings.database_url, settings.database_schema, MIGRATIONS, "billing")
    return settings


@pytest.fixture(scope="module")
def database(settings: Settings) -> Iterator[Database]:
    database = Database(settings.database_url, schema="billing", service="billing")
    yield database
    database.dispose()


@pytest.fixture(scope="module")
def clock() -> Clock:
    """Noon of 10 June 2026, UTC."""
    return Clock(utc("2026-06-10T12:00"))


@pytest.fixture(scope="module")
def client(settings: Settings, clock: Clock) -> Iterator[Client]:
    """A client of a server of this module's own."""
    server = build_server(settings, clock=clock)
    port = server.start()
    with open_channel(f"127.0.0.1:{port}", settings.kit) as channel:
        yield Client(channel)
    server.stop()


@pytest.fixture(scope="module")
def worker(settings: Settings, clock: Clock) -> Iterator[None]:
    worker = build_worker(settings, clock=clock)
    worker.start()
    yield
    worker.stop()
