"""The jobs of usage: the second entry. Each may be run again at any time."""

from datetime import timedelta
from typing import Final

from google.protobuf.json_format import ParseDict

from meterscope.alerts.v1 import alert_service_pb2
from services.kit.outbox import PATIENT, Job, Jobs
from services.kit.periodic import Periodic
from services.usage.clients import Alerts
from services.usage.convert import reports as convert
from services.usage.store.quarantine import Filter
from services.usage.usecases.anomalies import FIND_ANOMALIES, Anomalies
from services.usage.usecases.costs import PRICE_USAGE, Costs
from services.usage.usecases.quarantine import Quarantine
from services.usage.usecases.recounts import RECOUNT_METER, Recounts
from services.usage.usecases.reports.reports import MAKE_ATTEMPTS, MAKE_REPORT, Reports
from services.usage.usecases.retention import Retention
from services.usage.usecases.signals import RAISE_SIGNAL
from services.usage.usecases.upkeep import Upkeep

REPLAY: Final = "replay_quarantined_events"
UPKEEP: Final = "usage_upkeep"
RETENTION: Final = "usage_retention"
_UPKEEP_EVERY: Final = timedelta(hours=1)
_LONG: Final = timedelta(minutes=30)


def register(jobs: Jobs, alerts: Alerts, quarantine: Quarantine, upkeep: Upkeep, retention: Retention) -> None:
    """Name what runs each job."""

    def raise_signal(job: Job) -> None:
        request = ParseDict(job.payload["request"], alert_service_pb2.RaiseSignalRequest())
        alerts.raise_signal(request, job.id)

    def replay(_job: Job) -> None:
        quarantine.replay(Filter())

    def keep_up(_job: Job) -> None:
        upkeep.run()

    def let_go(_job: Job) -> None:
        retention.run()

    jobs.register(RAISE_SIGNAL, raise_signal, max_attempts=PATIENT)
    jobs.register(REPLAY, replay, time_limit=timedelta(minutes=10))
    jobs.register(UPKEEP, keep_up)
    jobs.register(RETENTION, let_go, time_limit=timedelta(hours=1))


def periodic(replay_every: timedelta) -> list[Periodic]:
    """Return what is run by itself."""
    return [
        Periodic(name=REPLAY, every=replay_every, job=REPLAY),
        Periodic(name=UPKEEP, every=_UPKEEP_EVERY, job=UPKEEP),
        Periodic(name=RETENTION, every=_UPKEEP_EVERY, job=RETENTION),
    ]


def register_recounts(jobs: Jobs, recounts: Recounts) -> None:
    """Name what runs recounts."""
    jobs.register(RECOUNT_METER, recounts.run, time_limit=_LONG, max_attempts=PATIENT)


def register_reporting(jobs: Jobs, costs: Costs, reports: Reports, anomalies: Anomalies) -> None:
    """Name what runs the jobs of reports."""

    def make_report(job: Job) -> None:
        reports.make(job, lambda found: convert.report(found).SerializeToString())

    jobs.register(PRICE_USAGE, costs.keep_up, time_limit=_LONG)
    jobs.register(FIND_ANOMALIES, anomalies.find, time_limit=_LONG)
    jobs.register(MAKE_REPORT, make_report, time_limit=_LONG, max_attempts=MAKE_ATTEMPTS)


def periodic_reporting(cost_every: timedelta, anomaly_every: timedelta) -> list[Periodic]:
    """Return what is run by itself."""
    return [
        Periodic(name=PRICE_USAGE, every=cost_every, job=PRICE_USAGE),
        Periodic(name=FIND_ANOMALIES, every=anomaly_every, job=FIND_ANOMALIES),
    ]
