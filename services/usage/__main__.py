"""The usage service's processes: `python -m services.usage serve [--migrate] | work | migrate`."""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import grpc
from opentelemetry import metrics

from meterscope.usage.v1 import (
    call_record_service_pb2,
    call_record_service_pb2_grpc,
    event_service_pb2,
    event_service_pb2_grpc,
    limit_service_pb2,
    limit_service_pb2_grpc,
    meter_service_pb2,
    meter_service_pb2_grpc,
    report_service_pb2,
    report_service_pb2_grpc,
    usage_service_pb2,
    usage_service_pb2_grpc,
)
from services.kit import command
from services.kit.channel import open_channel
from services.kit.db import Database
from services.kit.outbox import LEASE, Jobs, Outbox
from services.kit.server import Server
from services.kit.worker import Worker
from services.usage import workers
from services.usage.clients import Alerts, Billing
from services.usage.convert import calls as call_messages
from services.usage.counters import Counters
from services.usage.metrics import (
    AnomalyMetrics,
    CallMetrics,
    CorrectionMetrics,
    CostMetrics,
    DriftMetrics,
    DriftState,
    IngestMetrics,
    LimitGauges,
    LimitMetrics,
    LimitState,
    RedisMetrics,
    ReportMetrics,
    RollupMetrics,
    RollupState,
)
from services.usage.servicer.calls import CallRecordServicer
from services.usage.servicer.events import EventServicer
from services.usage.servicer.limits import LimitServicer
from services.usage.servicer.meters import MeterServicer
from services.usage.servicer.reports import ReportServicer
from services.usage.servicer.usage import UsageServicer
from services.usage.settings import Settings
from services.usage.usecases.anomalies import Anomalies
from services.usage.usecases.background import Background
from services.usage.usecases.calls import Calls
from services.usage.usecases.catalogue import Catalogue
from services.usage.usecases.corrections import Corrections
from services.usage.usecases.costs import Costs
from services.usage.usecases.defaults import DefaultLimits
from services.usage.usecases.drift import DriftCheck, DriftLoop
from services.usage.usecases.entitlements import EntitlementBook
from services.usage.usecases.events import Events
from services.usage.usecases.ingest import Ingest
from services.usage.usecases.keeper import Keeper
from services.usage.usecases.limits import Limits
from services.usage.usecases.meters import Meters
from services.usage.usecases.notifier import Notifier
from services.usage.usecases.positions import Positions
from services.usage.usecases.publish import Publisher
from services.usage.usecases.quarantine import Quarantine
from services.usage.usecases.query import Queries
from services.usage.usecases.recounts import Recounts
from services.usage.usecases.reports.maker import ReportMaker
from services.usage.usecases.reports.reports import Reports
from services.usage.usecases.reservations import Reservations
from services.usage.usecases.retention import Retention
from services.usage.usecases.rollup import Rollup, RollupLoop
from services.usage.usecases.seal import Seals
from services.usage.usecases.signals import Signals
from services.usage.usecases.upkeep import Upkeep

NAME: Final = "usage"
MIGRATIONS: Final = Path(__file__).parent / "migrations"
SERVICE_NAMES: Final = tuple(
    file.DESCRIPTOR.services_by_name[name].full_name
    for file, name in (
        (event_service_pb2, "EventService"),
        (meter_service_pb2, "MeterService"),
        (usage_service_pb2, "UsageService"),
        (limit_service_pb2, "LimitService"),
        (call_record_service_pb2, "CallRecordService"),
        (report_service_pb2, "ReportService"),
    )
)
# Besides those of the writers: what reads, and what this process asks by itself.
_OTHER_CONNECTIONS: Final = 16
_LOOPS_CONNECTIONS: Final = 8
_PUBLISH_TIMEOUT: Final = timedelta(seconds=2)


def now() -> datetime:
    """Return the time in UTC."""
    return datetime.now(UTC)


def build_server(settings: Settings) -> Server:
    """Wire the gRPC server."""
    meter = metrics.get_meter("services.usage")
    database = Database(
        settings.database_url,
        schema=settings.database_schema,
        service=NAME,
        pool_size=settings.ingest_writers + _OTHER_CONNECTIONS,
    )
    catalogue, notifier = Catalogue(database, now), Notifier(database)
    positions = Positions(database, notifier)
    counters = Counters(settings.redis_url, RedisMetrics(meter), timeout=settings.counter_timeout)
    ingest = Ingest(database, catalogue, notifier, clock=now, writers=settings.ingest_writers)
    quarantine = Quarantine(database, catalogue, notifier, now)
    ingested = IngestMetrics(meter)
    corrections = Corrections(database, catalogue, notifier, CorrectionMetrics(meter), ingested, now)
    events = EventServicer(
        ingest, Events(database), quarantine, corrections, ingested, now, most_streams=settings.streams
    )
    call_records = CallRecordServicer(
        Calls(database, ingest, call_messages.admitted, CallMetrics(meter), ingested, now)
    )
    meters = MeterServicer(Meters(database, Outbox(database), now))
    usage = UsageServicer(Queries(database, catalogue, positions, now), Seals(database, positions))
    limit_metrics = LimitMetrics(meter, most_customers=settings.metrics_max_customers)
    limits = Limits(database, catalogue, counters, limit_metrics)
    reservations = Reservations(
        database, catalogue, positions, limit_metrics, ttl=settings.reservation, longest=settings.reservation_max
    )
    limit = LimitServicer(limits, reservations, EntitlementBook(database, notifier, now))
    billing = open_channel(settings.billing_address, settings.kit)
    costs, reports, anomalies = _reporting(settings, database, Billing(billing), positions, meter)
    report = ReportServicer(reports, costs, anomalies)
    background = Background([catalogue, notifier, positions])

    def register(server: grpc.Server) -> None:
        event_service_pb2_grpc.add_EventServiceServicer_to_server(events, server)
        call_record_service_pb2_grpc.add_CallRecordServiceServicer_to_server(call_records, server)
        meter_service_pb2_grpc.add_MeterServiceServicer_to_server(meters, server)
        usage_service_pb2_grpc.add_UsageServiceServicer_to_server(usage, server)
        limit_service_pb2_grpc.add_LimitServiceServicer_to_server(limit, server)
        report_service_pb2_grpc.add_ReportServiceServicer_to_server(report, server)

    def stop() -> None:
        background.stop()
        counters.close()
        billing.close()
        database.dispose()

    server = Server(
        settings.address,
        register,
        service_names=SERVICE_NAMES,
        settings=replace(settings.kit, grpc_threads=settings.calls),
        check=database.answers,
        on_stop=stop,
    )
    background.start()
    return server


def build_worker(settings: Settings, *, lease: timedelta = LEASE) -> Worker:
    """Wire the worker.

    Args:
        settings: of the process.
        lease: how long a job of a killed worker waits for another one.
    """
    meter = metrics.get_meter("services.usage")
    database = Database(
        settings.database_url,
        schema=settings.database_schema,
        service=NAME,
        role="worker",
        pool_size=settings.kit.worker_threads + _LOOPS_CONNECTIONS,
    )
    catalogue, notifier = Catalogue(database, now), Notifier(database)
    counters = Counters(settings.redis_url, RedisMetrics(meter), timeout=_PUBLISH_TIMEOUT)
    state = RollupState()
    rollup_metrics = RollupMetrics(meter, state, most_customers=settings.metrics_max_customers)
    turns = Rollup(database, Signals(Outbox(database)), Publisher(database, counters), rollup_metrics)
    loop = RollupLoop(database, turns, rollup_metrics, state)
    limit_state = LimitState()
    LimitGauges(meter, limit_state)
    keeper = Keeper(
        database,
        counters,
        DefaultLimits(database, notifier, settings.default_limits),
        limit_state,
        most_customers=settings.metrics_max_customers,
        kept=settings.reservation_retention,
    )
    drift_state = DriftState()
    DriftMetrics(meter, drift_state)
    check = DriftCheck(database, Outbox(database), now)
    drift = DriftLoop(database, check, drift_state, every=settings.drift_every)
    jobs = Jobs()
    workers.register(
        jobs,
        Alerts(open_channel(settings.alerts_address, settings.kit)),
        Quarantine(database, catalogue, notifier, now),
        Upkeep(
            database,
            now,
            accepted=timedelta(days=settings.accept_days),
            reports_kept=timedelta(days=settings.report_days),
        ),
        Retention(
            database,
            now,
            raw_events=timedelta(days=settings.raw_event_days),
            refused=timedelta(days=settings.refused_days),
            archive=settings.raw_event_archive,
        ),
    )
    positions = Positions(database, notifier)
    billing = Billing(open_channel(settings.billing_address, settings.kit))
    workers.register_recounts(jobs, Recounts(database, positions, now))
    workers.register_reporting(jobs, *_reporting(settings, database, billing, positions, meter))
    return Worker(
        service=NAME,
        database=database,
        redis_url=settings.redis_url,
        jobs=jobs,
        settings=settings.kit,
        address=settings.worker_address,
        periodic=[
            *workers.periodic(settings.replay_every),
            *workers.periodic_reporting(settings.cost_every, settings.anomaly_every),
        ],
        loops=[loop, keeper, drift, catalogue, notifier, positions],
        lease=lease,
    )


def _reporting(
    settings: Settings, database: Database, billing: Billing, positions: Positions, meter: metrics.Meter
) -> tuple[Costs, Reports, Anomalies]:
    outbox = Outbox(database)
    costs = Costs(database, outbox, billing, CostMetrics(meter), now)
    maker = ReportMaker(database, billing, costs, positions, ReportMetrics(meter), now)
    reports = Reports(database, outbox, maker, now)
    window = timedelta(hours=settings.anomaly_window_hours)
    anomalies = Anomalies(
        database, outbox, positions, AnomalyMetrics(meter), now, window=window, factor=settings.anomaly_factor
    )
    return costs, reports, anomalies


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
