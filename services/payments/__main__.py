"""The payments service's processes: `python -m services.payments serve [--migrate] | work | migrate`."""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import grpc

from meterscope.payments.v1 import payment_method_service_pb2_grpc, payment_service_pb2_grpc
from services.kit import telemetry
from services.kit.channel import open_channel
from services.kit.db import Database, is_unavailable
from services.kit.migrate import MigrationsBusy, SchemaTooNew, migrate
from services.kit.outbox import LEASE, Jobs, Outbox
from services.kit.server import BindError, Server
from services.kit.settings import SettingsError, read
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


def migrate_schema(settings: Settings) -> None:
    """Bring the service's schema to this version."""
    migrate(settings.database_url, settings.database_schema, Path(__file__).parent / "migrations", NAME)


def main(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run one process until it is told to stop, and return its exit status.

    It is 78 (EX_CONFIG) where a variable is missing or wrong, 1 where the process cannot start; the reason is on
    standard error.
    """
    parser = argparse.ArgumentParser(prog=f"python -m services.{NAME}", description="The payments service.")
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="answer gRPC calls")
    serve.add_argument("--migrate", action="store_true", help="bring the schema to this version first")
    commands.add_parser("work", help="run the jobs")
    commands.add_parser("migrate", help="bring the schema to this version")
    chosen = parser.parse_args(arguments)
    try:
        settings = read(Settings, environ)
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return os.EX_CONFIG
    observing = telemetry.setup(NAME, settings.kit, role="worker" if chosen.command == "work" else "server")
    try:
        _run(chosen, settings)
    except (BindError, MigrationsBusy, SchemaTooNew) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except Exception as error:
        if not is_unavailable(error):
            raise
        sys.stderr.write(f"the database of {NAME} does not answer: {error}\n")
        return 1
    finally:
        observing.shutdown()
    return 0


def _run(chosen: argparse.Namespace, settings: Settings) -> None:
    if chosen.command == "migrate" or (chosen.command == "serve" and chosen.migrate):
        migrate_schema(settings)
    if chosen.command == "serve":
        build_server(settings).serve_until_signal()
    elif chosen.command == "work":
        build_worker(settings).run_until_signal()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
