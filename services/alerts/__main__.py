"""`python -m services.alerts serve [--migrate] | work | migrate`: the wiring of the alerts service's processes."""

import os
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import grpc
from opentelemetry import metrics
from opentelemetry.metrics import Meter
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc as otlp_grpc

from meterscope.alerts.v1.alert_service_pb2_grpc import add_AlertServiceServicer_to_server
from meterscope.alerts.v1.channel_service_pb2_grpc import add_ChannelServiceServicer_to_server
from meterscope.alerts.v1.metrics_service_pb2_grpc import add_MetricsServiceServicer_to_server
from meterscope.alerts.v1.notification_service_pb2_grpc import add_NotificationServiceServicer_to_server
from services.alerts.channels.connection import AddressGuard
from services.alerts.channels.log import LogChannel
from services.alerts.channels.webhook import WebhookChannel
from services.alerts.domain.alert import LinkBases
from services.alerts.domain.channel import ChannelKind
from services.alerts.domain.notification import RetryPolicy
from services.alerts.metrics import Instruments
from services.alerts.servicer import (
    SERVICE_NAMES,
    AlertServicer,
    ChannelServicer,
    MetricsServicer,
    NotificationServicer,
    SinkServicer,
)
from services.alerts.settings import Settings
from services.alerts.sink.latest import Latest
from services.alerts.usecases.alert import Alerts
from services.alerts.usecases.channel import Channels
from services.alerts.usecases.notification import Delivery, Notifications
from services.alerts.workers import CountOpenAlerts, register
from services.kit import command
from services.kit.db import Database
from services.kit.outbox import LEASE, Jobs
from services.kit.server import Server
from services.kit.worker import Worker

SERVICE: Final = "alerts"
MIGRATIONS: Final = Path(__file__).parent / "migrations"
LONGEST_RETRY_WAIT: Final = timedelta(hours=6)
_EXTRA_CONNECTIONS: Final = 6  # the worker's own loops, and ours


def build_server(settings: Settings) -> Server:
    """Wire the gRPC server; nothing listens yet."""
    database = Database(settings.database_url, schema=settings.database_schema, service=SERVICE)
    links = _links(settings)
    alerts = Alerts(database, links=links, clock=_now)
    channels = Channels(database, guard=_guard(settings), clock=_now)
    notifications = Notifications(database)
    latest = Latest(max_series=settings.sink_series, max_bytes=settings.sink_mib * 1024 * 1024)

    def add(server: grpc.Server) -> None:
        add_AlertServiceServicer_to_server(AlertServicer(alerts, links=links, clock=_now), server)
        add_ChannelServiceServicer_to_server(ChannelServicer(channels), server)
        add_NotificationServiceServicer_to_server(NotificationServicer(notifications), server)
        add_MetricsServiceServicer_to_server(MetricsServicer(latest), server)
        otlp_grpc.add_MetricsServiceServicer_to_server(  # type: ignore[no-untyped-call]
            SinkServicer(latest), server
        )

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


def main(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run one process; see `services.kit.command`."""
    return command.run(
        SERVICE,
        arguments,
        environ,
        read=Settings,
        build_server=build_server,
        build_worker=build_worker,
        migrations=MIGRATIONS,
    )


def _links(settings: Settings) -> LinkBases:
    return LinkBases(jaeger=settings.jaeger_url, grafana=settings.grafana_url)


def _guard(settings: Settings) -> AddressGuard:
    return AddressGuard(allow_private=settings.allow_private_webhooks)


def _now() -> datetime:
    return datetime.now(UTC)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
