"""`python -m services.alerts serve [--migrate] | work | migrate`: the wiring of the alerts service's processes."""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import grpc
from opentelemetry import metrics
from opentelemetry.metrics import Meter

from meterscope.alerts.v1.alert_service_pb2_grpc import add_AlertServiceServicer_to_server
from meterscope.alerts.v1.channel_service_pb2_grpc import add_ChannelServiceServicer_to_server
from meterscope.alerts.v1.notification_service_pb2_grpc import add_NotificationServiceServicer_to_server
from services.alerts.channels.connection import AddressGuard
from services.alerts.channels.log import LogChannel
from services.alerts.channels.webhook import WebhookChannel
from services.alerts.domain.alert import LinkBases
from services.alerts.domain.channel import ChannelKind
from services.alerts.domain.notification import RetryPolicy
from services.alerts.metrics import Instruments
from services.alerts.servicer import SERVICE_NAMES, AlertServicer, ChannelServicer, NotificationServicer
from services.alerts.settings import Settings
from services.alerts.usecases.alert import Alerts
from services.alerts.usecases.channel import Channels
from services.alerts.usecases.notification import Delivery, Notifications
from services.alerts.workers import CountOpenAlerts, register
from services.kit import telemetry
from services.kit.db import Database, is_unavailable
from services.kit.migrate import MigrationsBusy, SchemaTooNew, migrate
from services.kit.outbox import LEASE, Jobs
from services.kit.server import BindError, Server
from services.kit.settings import SettingsError, read
from services.kit.worker import Worker

SERVICE: Final = "alerts"
LONGEST_RETRY_WAIT: Final = timedelta(hours=6)
EX_CONFIG: Final = 78  # sysexits.h
_EXTRA_CONNECTIONS: Final = 6  # the worker's own loops, and ours


def build_server(settings: Settings) -> Server:
    """Wire the gRPC server; nothing listens yet."""
    database = Database(settings.database_url, schema=settings.database_schema, service=SERVICE)
    links = _links(settings)
    alerts = Alerts(database, links=links, clock=_now)
    channels = Channels(database, guard=_guard(settings), clock=_now)
    notifications = Notifications(database)

    def add(server: grpc.Server) -> None:
        add_AlertServiceServicer_to_server(AlertServicer(alerts, links=links, clock=_now), server)
        add_ChannelServiceServicer_to_server(ChannelServicer(channels), server)
        add_NotificationServiceServicer_to_server(NotificationServicer(notifications), server)

    return Server(
        settings.address,
        add,
        service_names=SERVICE_NAMES,
        settings=settings.kit,
        check=database.answers,
        on_stop=database.dispose,
    )


def build_worker(settings: Settings, *, lease: timedelta = LEASE, meter: Meter | None = None) -> Worker:
    """Wire the worker; nothing runs yet.

    Args:
        settings: of the process.
        lease: after which the jobs of a killed worker are run by another.
        meter: where instruments are made; the process's own by default.
    """
    meter = meter or metrics.get_meter("services.alerts")
    database = Database(
        settings.database_url,
        schema=settings.database_schema,
        service=SERVICE,
        role="worker",
        pool_size=settings.kit.worker_threads + _EXTRA_CONNECTIONS,
    )
    links = _links(settings)
    delivery = Delivery(
        database,
        senders={
            ChannelKind.LOG: LogChannel(),
            ChannelKind.WEBHOOK: WebhookChannel(_guard(settings), links, timeout=settings.webhook_timeout),
        },
        policy=RetryPolicy(settings.notification_attempts, settings.notification_retry, LONGEST_RETRY_WAIT),
        instruments=Instruments(meter),
        clock=_now,
    )
    jobs = Jobs()
    register(jobs, delivery)
    return Worker(
        service=SERVICE,
        database=database,
        redis_url=settings.redis_url,
        jobs=jobs,
        settings=settings.kit,
        address=settings.worker_address,
        loops=[CountOpenAlerts(Alerts(database, links=links, clock=_now), meter, database)],
        lease=lease,
    )


def migrate_schema(settings: Settings) -> None:
    """Bring the service's schema to this version."""
    migrate(settings.database_url, settings.database_schema, Path(__file__).parent / "migrations", SERVICE)


def main(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run a command; return the exit code: 78 where a variable is wrong, 1 where the process cannot start."""
    parser = argparse.ArgumentParser(prog="python -m services.alerts", description="The alerts service.")
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
    role = "worker" if options.command == "work" else "server"
    observed = telemetry.setup(SERVICE, settings.kit, role=role)
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


def _links(settings: Settings) -> LinkBases:
    return LinkBases(jaeger=settings.jaeger_url, grafana=settings.grafana_url)


def _guard(settings: Settings) -> AddressGuard:
    return AddressGuard(allow_private=settings.allow_private_webhooks)


def _now() -> datetime:
    return datetime.now(UTC)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
