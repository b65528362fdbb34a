"""The payments service in this process, on real PostgreSQL and Valkey; billing and alerts are small real gRPC servers."""

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import grpc
import pytest
from google.type import money_pb2

from meterscope.alerts.v1 import alert_service_pb2, alert_service_pb2_grpc
from meterscope.billing.v1 import invoice_service_pb2, invoice_service_pb2_grpc
from meterscope.payments.v1 import payment_method_service_pb2 as methods_pb
from meterscope.payments.v1 import payment_method_service_pb2_grpc as methods_grpc
from meterscope.payments.v1 import payment_service_pb2 as payments_pb
from meterscope.payments.v1 import payment_service_pb2_grpc as payments_grpc
from services import payments
from services.kit.channel import open_channel
from services.kit.db import Database
from services.kit.ids import new_id
from services.kit.migrate import migrate
from services.kit.money import Money
from services.kit.settings import read
from services.kit.worker import Worker
from services.payments.__main__ import build_server, build_worker
from services.payments.providers.base import Provider
from services.payments.providers.sandbox import Sandbox
from services.payments.providers.sandbox_store import SandboxBooks
from services.payments.settings import Settings

T = TypeVar("T")
StartWorker = Callable[[Mapping[str, Provider] | None], Worker]

DEADLINE_SECONDS = 20.0
_requests = itertools.count(1)


def eventually(read_: Callable[[], T], accept: Callable[[T], bool]) -> T:
    """Read until the value is accepted, for 20 s at most, and return it."""
    pause, deadline = threading.Event(), time.monotonic() + DEADLINE_SECONDS
    while not accept(value := read_()):
        assert time.monotonic() < deadline, f"still {value!r}"
        pause.wait(0.02)
    return value


@dataclass
class Billing(invoice_service_pb2_grpc.InvoiceServiceServicer):
    """The edge to billing: keeps what it is told."""

    recorded: list[invoice_service_pb2.RecordPaymentRequest] = field(default_factory=list)

    def RecordPayment(
        self, request: invoice_service_pb2.RecordPaymentRequest, _context: grpc.ServicerContext
    ) -> invoice_service_pb2.Invoice:
        self.recorded.append(request)
        return invoice_service_pb2.Invoice(id=request.invoice_id)

    def of(self, payment: str) -> list[invoice_service_pb2.RecordPaymentRequest]:
        return [request for request in self.recorded if request.payment_id == payment]


@dataclass
class Alerts(alert_service_pb2_grpc.AlertServiceServicer):
    """The edge to alerts: keeps what it is told."""

    raised: list[alert_service_pb2.RaiseSignalRequest] = field(default_factory=list)

    def RaiseSignal(
        self, request: alert_service_pb2.RaiseSignalRequest, _context: grpc.ServicerContext
    ) -> alert_service_pb2.Alert:
        self.raised.append(request)
        return alert_service_pb2.Alert(fingerprint=request.fingerprint)

    def of(self, payment: str) -> list[alert_service_pb2.RaiseSignalRequest]:
        return [request for request in self.raised if request.data["payment_id"] == payment]


@dataclass(frozen=True)
class Peers:
    billing: Billing
    alerts: Alerts
    address: str


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


@dataclass(frozen=True)
class Client:
    """Calls the service as billing and the gateway do."""

    methods: methods_grpc.PaymentMethodServiceStub
    payments: payments_grpc.PaymentServiceStub

    def add_method(self, token: str, customer: str | None = None) -> methods_pb.PaymentMethod:
        method = methods_pb.PaymentMethod(provider="sandbox", provider_token=token)
        return self.methods.CreatePaymentMethod(
            methods_pb.CreatePaymentMethodRequest(customer_id=customer or new_id("cus"), payment_method=method)
        )

    def request(self, customer: str, *, invoice: str = "", units: int = 1234) -> payments_pb.CreatePaymentRequest:
        return payments_pb.CreatePaymentRequest(
            payment=payments_pb.Payment(
                customer_id=customer,
                invoice_id=invoice,
                amount=money_pb2.Money(currency_code="INR", units=units, nanos=500_000_000),
            ),
            request_id=f"request-{next(_requests)}",
        )

    def pay(self, token: str, *, invoice: str = "") -> payments_pb.Payment:
        """Have a new customer pay INR 1,234.50 by a method of this token."""
        customer = self.add_method(token).customer_id
        return self.payments.CreatePayment(self.request(customer, invoice=invoice))

    def until(self, payment_id: str, *states: payments_pb.PaymentState.ValueType) -> payments_pb.Payment:
        return eventually(
            lambda: self.payments.GetPayment(payments_pb.GetPaymentRequest(payment_id=payment_id)),
            lambda payment: payment.state in states,
        )


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
