"""The payments service's processes: `python -m services.payments serve [--migrate] | work | migrate`."""

import argparse
import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import grpc

from meterscope.payments.v1 import payment_method_service_pb2_grpc, payment_service_pb2_grpc
from services.kit import migrate, settings, telemetry
from services.kit.channel import open_channel
from services.kit.db import Database
from services.kit.outbox import LEASE, Jobs, Outbox
from services.kit.server import BindError, Server
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


def build_providers(given: Settings, database: Database) -> dict[str, Provider]:
    """Return the providers by name."""
    return {Sandbox.name: Sandbox(SandboxBooks(database), latency=given.sandbox_latency)}


def build_server(given: Settings) -> Server:
    """Wire the gRPC server."""
    database = Database(given.database_url, schema=given.database_schema, service=NAME)
    methods = PaymentMethodServicer(PaymentMethods(database, build_providers(given, database), now))
    payments = PaymentServicer(Payments(database, Outbox(database), now))

    def register(server: grpc.Server) -> None:
        payment_method_service_pb2_grpc.add_PaymentMethodServiceServicer_to_server(methods, server)
        payment_service_pb2_grpc.add_PaymentServiceServicer_to_server(payments, server)

    return Server(
        given.address,
        register,
        service_names=SERVICE_NAMES,
        settings=given.kit,
        check=database.answers,
        on_stop=database.dispose,
    )


def build_worker(
    given: Settings, *, providers: Mapping[str, Provider] | None = None, lease: timedelta = LEASE
) -> Worker:
    """Wire the worker.

    Args:
        given: the settings.
        providers: by name; those of `build_providers` when None.
        lease: how long a job of a killed worker waits for another one.
    """
    database = Database(
        given.database_url,
        schema=given.database_schema,
        service=NAME,
        role="worker",
        pool_size=given.kit.worker_threads + _LOOPS_CONNECTIONS,
    )
    policy = RetryPolicy(given.schedule, given.reconcile_delay)
    attempts = Attempts(database, Outbox(database), providers or build_providers(given, database), policy, now)
    billing = Billing(open_channel(given.billing_address, given.kit))
    alerts = Alerts(open_channel(given.alerts_address, given.kit))
    jobs = Jobs()
    workers.register(jobs, attempts, billing, alerts)
    return Worker(
        service=NAME,
        database=database,
        redis_url=given.redis_url,
        jobs=jobs,
        settings=given.kit,
        address=given.worker_address,
        lease=lease,
    )


def bring_up_to_date(given: Settings) -> None:
    """Migrate the service's schema."""
    migrate.migrate(given.database_url, given.database_schema, Path(__file__).parent / "migrations", NAME)


def main(arguments: list[str]) -> int:
    """Run one process until it is told to stop.

    Returns:
        The exit status: 78 (EX_CONFIG) for settings that are missing or wrong, with the reason on standard error.
    """
    parser = argparse.ArgumentParser(prog=f"python -m services.{NAME}", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="answer gRPC calls")
    serve.add_argument("--migrate", action="store_true", help="bring the database's schema up to date first")
    commands.add_parser("work", help="run the jobs")
    commands.add_parser("migrate", help="bring the database's schema up to date and exit")
    chosen = parser.parse_args(arguments)
    try:
        given = settings.read(Settings, os.environ)
        observing = telemetry.setup(NAME, given.kit, role="worker" if chosen.command == "work" else "server")
        try:
            _run(chosen.command, given, migrate_first=chosen.command == "serve" and chosen.migrate)
        finally:
            observing.shutdown()
    except (settings.SettingsError, BindError, migrate.SchemaTooNew) as error:
        sys.stderr.write(f"{parser.prog}: {error}\n")
        return os.EX_CONFIG
    return 0


def _run(command: str, given: Settings, *, migrate_first: bool) -> None:
    if command == "migrate" or migrate_first:
        bring_up_to_date(given)
    if command == "serve":
        build_server(given).serve_until_signal()
    elif command == "work":
        build_worker(given).run_until_signal()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
