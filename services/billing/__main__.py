"""`python -m services.billing serve [--migrate] | work | migrate`: the wiring of the billing service's processes."""

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import grpc
from opentelemetry import metrics
from opentelemetry.metrics import Meter

from meterscope.billing.v1.bill_run_service_pb2_grpc import add_BillRunServiceServicer_to_server
from meterscope.billing.v1.catalog_service_pb2_grpc import add_CatalogServiceServicer_to_server
from meterscope.billing.v1.customer_service_pb2_grpc import add_CustomerServiceServicer_to_server
from meterscope.billing.v1.invoice_service_pb2_grpc import add_InvoiceServiceServicer_to_server
from meterscope.billing.v1.ledger_service_pb2_grpc import add_LedgerServiceServicer_to_server
from meterscope.billing.v1.subscription_service_pb2_grpc import add_SubscriptionServiceServicer_to_server
from services.billing import servicer
from services.billing.clients import Peers
from services.billing.domain.numbering import Seller
from services.billing.domain.trace import TraceLinks
from services.billing.metrics import Gauges, Instruments
from services.billing.rendering import InvoicePage
from services.billing.settings import Settings
from services.billing.usecases.bill_runs import BillRuns
from services.billing.usecases.customers import Customers
from services.billing.usecases.entitlements import Entitlements
from services.billing.usecases.explanations import Explanations
from services.billing.usecases.followups import Collection, Signals
from services.billing.usecases.invoices import Invoices
from services.billing.usecases.ledger import Ledger
from services.billing.usecases.periods import Periods
from services.billing.usecases.plans import Plans
from services.billing.usecases.statistics import Statistics
from services.billing.usecases.subscriptions import Subscriptions
from services.billing.workers import COUNT_EVERY, EXTEND, ReadState, register
from services.kit import telemetry
from services.kit.channel import open_channel
from services.kit.db import Database, is_unavailable
from services.kit.leases import Lease
from services.kit.migrate import MigrationsBusy, SchemaTooNew, migrate
from services.kit.outbox import LEASE, Jobs, Outbox
from services.kit.server import BindError, Server
from services.kit.settings import SettingsError, read
from services.kit.worker import Worker

SERVICE: Final = "billing"
EX_CONFIG: Final = 78  # sysexits.h
_EXTRA_CONNECTIONS: Final = 6  # the worker's own loops, and ours


def now() -> datetime:
    """Return the current instant."""
    return datetime.now(UTC)


def build_server(settings: Settings, *, clock: Callable[[], datetime] = now, meter: Meter | None = None) -> Server:
    """Wire the gRPC server; nothing listens yet.

    Args:
        settings: of the process.
        clock: says what time it is.
        meter: where instruments are made; the process's own by default.
    """
    database = Database(settings.database_url, schema=settings.database_schema, service=SERVICE)
    outbox, peers, links = Outbox(database), _peers(settings), TraceLinks(settings.jaeger_url)
    instruments = Instruments(meter or metrics.get_meter("services.billing"))
    page = InvoicePage(settings.seller_name, links)
    invoices = Invoices(database, outbox, page, clock)
    customers = servicer.CustomerServicer(Customers(database, outbox, instruments, clock))
    explained = servicer.InvoiceServicer(invoices, Explanations(database, peers.usage, links))

    def add(server: grpc.Server) -> None:
        add_CustomerServiceServicer_to_server(customers, server)
        add_CatalogServiceServicer_to_server(servicer.CatalogServicer(Plans(database, clock)), server)
        subscriptions = servicer.SubscriptionServicer(Subscriptions(database, outbox, clock))
        add_SubscriptionServiceServicer_to_server(subscriptions, server)
        add_BillRunServiceServicer_to_server(servicer.BillRunServicer(BillRuns(database, outbox, clock)), server)
        add_InvoiceServiceServicer_to_server(explained, server)
        add_LedgerServiceServicer_to_server(servicer.LedgerServicer(Ledger(database)), server)

    def close() -> None:
        peers.close()
        database.dispose()

    return Server(
        settings.address,
        add,
        service_names=servicer.SERVICE_NAMES,
        settings=settings.kit,
        check=database.answers,
        on_stop=close,
    )


def build_worker(
    settings: Settings,
    *,
    clock: Callable[[], datetime] = now,
    lease: timedelta = LEASE,
    meter: Meter | None = None,
) -> Worker:
    """Wire the worker; nothing runs yet.

    Args:
        settings: of the process.
        clock: says what time it is.
        lease: after which the jobs of a killed worker are run by another.
        meter: where instruments are made; the process's own by default.
    """
    meter = meter or metrics.get_meter("services.billing")
    database = Database(
        settings.database_url,
        schema=settings.database_schema,
        service=SERVICE,
        role="worker",
        pool_size=settings.kit.worker_threads + _EXTRA_CONNECTIONS,
    )
    jobs = Jobs()
    _register(jobs, settings, database, Instruments(meter), clock)
    counting = Lease(database, ReadState.name, COUNT_EVERY * 3)
    return Worker(
        service=SERVICE,
        database=database,
        redis_url=settings.redis_url,
        jobs=jobs,
        settings=settings.kit,
        address=settings.worker_address,
        periodic=[EXTEND],
        loops=[ReadState(Statistics(database), Gauges(meter, counting), counting)],
        lease=lease,
    )


def migrate_schema(settings: Settings) -> None:
    """Bring the service's schema to this version."""
    migrate(settings.database_url, settings.database_schema, Path(__file__).parent / "migrations", SERVICE)


def main(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run a command; return the exit code: 78 where a variable is wrong, 1 where the process cannot start."""
    parser = argparse.ArgumentParser(prog="python -m services.billing", description="The billing service.")
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="answer gRPC calls")
    serve.add_argument("--migrate", action="store_true", help="bring the schema to this version first")
    commands.add_parser("work", help="run the jobs")
    commands.add_parser("migrate", help="bring the schema to this version")
    options = parser.parse_args(arguments)
    try:
        settings = read(Settings, environ)
    except SettingsError as error:
        print(error, file=sys.stderr)  # noqa: T201 - logs are not set up without settings
        return EX_CONFIG
    observed = telemetry.setup(SERVICE, settings.kit, role="worker" if options.command == "work" else "server")
    try:
        _run(options, settings)
    except (BindError, MigrationsBusy, SchemaTooNew) as error:
        print(error, file=sys.stderr)  # noqa: T201 - what the user has to do, not an event
        return 1
    except Exception as error:
        if not is_unavailable(error):
            raise
        print(f"the database of {SERVICE} does not answer: {error}", file=sys.stderr)  # noqa: T201 - likewise
        return 1
    finally:
        observed.shutdown()
    return 0


def _run(options: argparse.Namespace, settings: Settings) -> None:
    if options.command == "migrate" or (options.command == "serve" and options.migrate):
        migrate_schema(settings)
    if options.command == "serve":
        build_server(settings).serve_until_signal()
    elif options.command == "work":
        build_worker(settings).run_until_signal()


def _register(
    jobs: Jobs, settings: Settings, database: Database, instruments: Instruments, clock: Callable[[], datetime]
) -> None:
    outbox, peers = Outbox(database), _peers(settings)
    seller = Seller(settings.seller_id, settings.invoice_prefix, settings.seller_time_zone, settings.fiscal_year_month)
    register(
        jobs,
        entitlements=Entitlements(database, outbox, peers.usage),
        bill_runs=BillRuns(database, outbox, clock),
        periods=Periods(
            database,
            outbox,
            peers.usage,
            seller=seller,
            max_attempts=settings.bill_attempts,
            instruments=instruments,
            clock=clock,
        ),
        collection=Collection(database, outbox, peers.payments, retry=settings.collect_retry),
        signals=Signals(database, peers.alerts),
        bill_attempts=settings.bill_attempts,
        bill_retry=settings.bill_retry,
        clock=clock,
    )


def _peers(settings: Settings) -> Peers:
    return Peers(
        usage=open_channel(settings.usage_address, settings.kit),
        payments=open_channel(settings.payments_address, settings.kit),
        alerts=open_channel(settings.alerts_address, settings.kit),
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
