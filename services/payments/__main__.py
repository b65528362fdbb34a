"""The payments service's processes: `python -m services.payments serve [--migrate] | work | migrate`."""

import os
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import grpc

from meterscope.payments.v1 import payment_method_service_pb2_grpc, payment_service_pb2_grpc
from services.kit import command
from services.kit.channel import open_channel
from services.kit.db import Database
from services.kit.outbox import LEASE, Jobs, Outbox
from services.kit.server import Server
from services.kit.worker import Worker
from services.payments import workers
from services.payments.clients import Alerts, Billing
from services.payments.providers.base import Provider
from services.payments.providers.sandbox import Sandbox
from services.payments.providers.sandbox_store import SandboxBooks
from services.payments.servicer import SERVICE_NAMES, PaymentMethodServicer, PaymentServicer
from services.payments.settings import Settings
from services.payments.usecases.attempts import Attempts, RetryPolicy
from services.payments.usecases.methods import PaymentMethods
from services.payments.usecases.payments import Payments

NAME: Final = "payments"
MIGRATIONS: Final = Path(__file__).parent / "migrations"
_LOOPS_CONNECTIONS: Final = 4


def now() -> datetime:
    """Return the time in UTC."""
    return datetime.now(UTC)


def build_providers(settings: Settings, database: Database) -> dict[str, Provider]:
    """Return the providers by name."""
    return {Sandbox.name: Sandbox(SandboxBooks(database), latency=settings.sandbox_latency)}


def build_server(settings: Settings) -> Server:
    """Wire the gRPC server."""
    database = Database(settings.database_url, schema=settings.database_schema, service=NAME)
    methods = PaymentMethodServicer(PaymentMethods(database, build_providers(settings, database), now))
    payments = PaymentServicer(Payments(database, Outbox(database), now))

    def register(server: grpc.Server) -> None:
        payment_method_service_pb2_grpc.add_PaymentMethodServiceServicer_to_server(methods, server)
        payment_service_pb2_grpc.add_PaymentServiceServicer_to_server(payments, server)

    return Server(
        settings.address,
        register,
        service_names=SERVICE_NAMES,
        settings=settings.kit,
        check=database.answers,
        on_stop=database.dispose,
    )


def build_worker(
    settings: Settings, *, providers: Mapping[str, Provider] | None = None, lease: timedelta = LEASE
) -> Worker:
    """Wire the worker.

    Args:
        settings: of the process.
        providers: by name; those of `build_providers` when None.
        lease: how long a job of a killed worker waits for another one.
    """
    database = Database(
        settings.database_url,
        schema=settings.database_schema,
        service=NAME,
        role="worker",
        pool_size=settings.kit.worker_threads + _LOOPS_CONNECTIONS,
    )
    policy = RetryPolicy(settings.schedule, settings.reconcile_delay)
    attempts = Attempts(database, Outbox(database), providers or build_providers(settings, database), policy, now)
    billing = Billing(open_channel(settings.billing_address, settings.kit))
    alerts = Alerts(open_channel(settings.alerts_address, settings.kit))
    jobs = Jobs()
    workers.register(jobs, attempts, billing, alerts)
    return Worker(
        service=NAME,
        database=database,
        redis_url=settings.redis_url,
        jobs=jobs,
        settings=settings.kit,
        address=settings.worker_address,
        lease=lease,
    )


def main(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run one process; see `services.kit.command`."""
    return command.run(
        NAME,
        arguments,
        environ,
        read=Settings,
        build_server=build_server,
        build_worker=build_worker,
        migrations=MIGRATIONS,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
