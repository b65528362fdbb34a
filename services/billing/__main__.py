"""`python -m services.billing serve [--migrate] | work | migrate`: the wiring of the billing service's processes."""

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
from services.billing.usecases.prices import Prices
from services.billing.usecases.statistics import Statistics
from services.billing.usecases.subscriptions import Subscriptions
from services.billing.workers import COUNT_EVERY, EXTEND, ReadState, register
from services.kit import command
from services.kit.channel import open_channel
from services.kit.db import Database
from services.kit.leases import Lease
from services.kit.outbox import LEASE, Jobs, Outbox
from services.kit.server import Server
from services.kit.worker import Worker

NAME: Final = "billing"
MIGRATIONS: Final = Path(__file__).parent / "migrations"
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
    database = Database(settings.database_url, schema=settings.database_schema, service=NAME)
    outbox, peers, links = Outbox(database), _peers(settings), TraceLinks(settings.jaeger_url)
    instruments = Instruments(meter or metrics.get_meter("services.billing"))
    page = InvoicePage(settings.seller_name, links)
    invoices = Invoices(database, outbox, page, clock)
    customers = servicer.CustomerServicer(Customers(database, outbox, instruments, clock))
    explained = servicer.InvoiceServicer(invoices, Explanations(database, peers.usage, links))

    def add(server: grpc.Server) -> None:
        add_CustomerServiceServicer_to_server(customers, server)
        catalog = servicer.CatalogServicer(Plans(database, clock), Prices(database))
        add_CatalogServiceServicer_to_server(catalog, server)
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
        service=NAME,
        role="worker",
        pool_size=settings.kit.worker_threads + _EXTRA_CONNECTIONS,
    )
    jobs = Jobs()
    _register(jobs, settings, database, Instruments(meter), clock)
    counting = Lease(database, ReadState.name, COUNT_EVERY * 3)
    return Worker(
        service=NAME,
        database=database,
        redis_url=settings.redis_url,
        jobs=jobs,
        settings=settings.kit,
        address=settings.worker_address,
        periodic=[EXTEND],
        loops=[ReadState(Statistics(database), Gauges(meter, counting), counting)],
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
