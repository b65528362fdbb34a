"""The jobs of payments: the second entry. Each may be run again at any time."""

from google.protobuf.json_format import ParseDict

from meterscope.alerts.v1 import alert_service_pb2
from meterscope.billing.v1 import invoice_service_pb2
from services.kit.outbox import PATIENT, Job, Jobs
from services.payments.clients import Alerts, Billing
from services.payments.usecases import followups
from services.payments.usecases.attempts import Attempts


def register(jobs: Jobs, attempts: Attempts, billing: Billing, alerts: Alerts) -> None:
    """Name what runs each job."""

    def record_payment(job: Job) -> None:
        billing.record_payment(ParseDict(job.payload, invoice_service_pb2.RecordPaymentRequest()), job.id)

    def raise_signal(job: Job) -> None:
        alerts.raise_signal(ParseDict(job.payload, alert_service_pb2.RaiseSignalRequest()), job.id)

    jobs.register(followups.ATTEMPT_PAYMENT, attempts.attempt)
    jobs.register(followups.RECONCILE_PAYMENT, attempts.reconcile)
    jobs.register(followups.RECORD_PAYMENT, record_payment, max_attempts=PATIENT)
    jobs.register(followups.RAISE_SIGNAL, raise_signal, max_attempts=PATIENT)
