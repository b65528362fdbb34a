"""The payments service in this process, on real PostgreSQL and Valkey; billing and alerts are small real gRPC servers."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
from payments_harness import Alerts, Billing, Client, Peers, StartWorker

from meterscope.alerts.v1 import alert_service_pb2_grpc
from meterscope.billing.v1 import invoice_service_pb2_grpc
from meterscope.payments.v1 import payment_method_service_pb2_grpc as methods_grpc
from meterscope.payments.v1 import payment_service_pb2_grpc as payments_grpc
from services import payments
from services.kit.channel import open_channel
from services.kit.db import Database
from services.kit.migrate import migrate
from services.kit.money import Money
from services.kit.settings import read
from services.kit.worker import Worker
from services.payments.__main__ import build_server, build_worker
from services.payments.providers.base import Provider
from services.payments.providers.sandbox import Sandbox
from services.payments.providers.sandbox_store import SandboxBooks
from services.payments.settings import Settings


@pytest.fixture(scope="module")
def peers() -> Iterator[Peers]:
    billing = Billing()  # type: ignore[abstract] # the other methods answer UNIMPLEMENTED
    alerts = Alerts()  # type: ignore[abstract] # likewise
    server = grpc.server(ThreadPoolExecutor(4))
    invoice_service_pb2_grpc.add_InvoiceServiceServicer_to_server(billing, server)
    alert_service_pb2_grpc.add_AlertServiceServicer_to_server(alerts, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield Peers(billing, alerts, f"127.0.0.1:{port}")
    server.stop(None).wait()


@pytest.fixture(scope="module")
def migrated_url(database_url: str) -> str:
    migrate(database_url, "payments", Path(payments.__path__[0]) / "migrations", "payments")
    return database_url


@pytest.fixture(scope="module")
def database(migrated_url: str) -> Iterator[Database]:
    database = Database(migrated_url, schema="payments", service="payments")
    yield database
    database.dispose()


@pytest.fixture(scope="module")
def sandbox(database: Database) -> Sandbox:
    """The provider as one sees it from outside: asked what it really charged."""
    return Sandbox(SandboxBooks(database), latency=timedelta())


@pytest.fixture(scope="module")
def environment(database_url: str, redis_url: str, peers: Peers) -> dict[str, str]:
    """What the service's processes are started with: the delays of days are fractions of a second."""
    return {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "METERSCOPE_PAYMENTS_ADDRESS": "127.0.0.1:0",
        "METERSCOPE_PAYMENTS_WORKER_ADDRESS": "127.0.0.1:0",
        "METERSCOPE_BILLING_ADDRESS": peers.address,
        "METERSCOPE_ALERTS_ADDRESS": peers.address,
        "METERSCOPE_PAYMENT_RETRY_DELAYS": "0.2,0.2",
        "METERSCOPE_PAYMENT_PROVIDER_DOWN_DELAYS": "0.1",
        "METERSCOPE_PAYMENT_RECONCILE_SECONDS": "0.2",
        "METERSCOPE_SANDBOX_LATENCY_SECONDS": "0",
        "METERSCOPE_ENVIRONMENT": "test",
    }


@pytest.fixture(scope="module")
def settings(environment: Mapping[str, str]) -> Settings:
    return read(Settings, environment)


@pytest.fixture(scope="module")
def client(settings: Settings, migrated_url: str) -> Iterator[Client]:
    """A client of a server of this module's own."""
    server = build_server(replace(settings, database_url=migrated_url))
    port = server.start()
    with open_channel(f"127.0.0.1:{port}", settings.kit) as channel:
        yield Client(methods_grpc.PaymentMethodServiceStub(channel), payments_grpc.PaymentServiceStub(channel))
    server.stop()


@pytest.fixture
def start_worker(settings: Settings, migrated_url: str) -> Iterator[StartWorker]:
    """Start a worker in place of the one before; a job of one that died waits for a second."""
    running: list[Worker] = []

    def start(providers: Mapping[str, Provider] | None) -> Worker:
        while running:
            running.pop().stop()
        given = replace(settings, database_url=migrated_url)
        running.append(build_worker(given, providers=providers, lease=timedelta(seconds=1)))
        running[0].start()
        return running[0]

    yield start
    while running:
        running.pop().stop()


@pytest.fixture(scope="module")
def worker(settings: Settings, migrated_url: str) -> Iterator[None]:
    worker = build_worker(replace(settings, database_url=migrated_url))
    worker.start()
    yield
    worker.stop()


@pytest.fixture
def charged(sandbox: Sandbox) -> Callable[[str], list[Money]]:
    """What the provider says that it moved for a payment."""

    def amounts(payment_id: str) -> list[Money]:
        return [charge.amount for charge in sandbox.charges(payment_id) if not charge.decline_reason]

    return amounts
