"""Reports by range: made at once, or over a long range by a job."""

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

import sqlalchemy as sa

from services.kit import telemetry
from services.kit.db import Database
from services.kit.errors import InvalidArgument, ServiceError
from services.kit.ids import new_id
from services.kit.outbox import Job, LeaseLost, Outbox, Postpone
from services.usage.domain.limit import Period
from services.usage.errors import CustomerNotFound, ReportNotFound, TooManyReports
from services.usage.store import customers, reports
from services.usage.store.customers import Customer
from services.usage.store.reports import StoredReport
from services.usage.usecases.reports.maker import BY_JOB, ReportMaker
from services.usage.usecases.reports.report import UsageReport
from services.usage.usecases.reports.scope import period_of

MAKE_REPORT: Final = "make_usage_report"
MAKE_ATTEMPTS: Final = 5
# A report that is still running after so long is made by nobody any more: all attempts take a few hours at most.
GIVEN_UP_AFTER: Final = timedelta(days=1)
_AT_ONCE: Final = timedelta(days=92)
_FRESH: Final = timedelta(hours=1)
_MOST_RUNNING: Final = 10

_log = logging.getLogger(__name__)


class Reports:
    """Answers reports, and makes long ones."""

    def __init__(self, database: Database, outbox: Outbox, maker: ReportMaker, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._outbox = outbox
        self._maker = maker
        self._clock = clock

    def get(self, customer_id: str, start: datetime | None, end: datetime | None) -> UsageReport | StoredReport:
        """Return the report on a range, or how far the job is that makes it.

        Args:
            customer_id: whose.
            start: the first instant; None for that of the current period.
            end: the first instant behind; None for that of the current period.

        Raises:
            CustomerNotFound: there is none of this id.
            InvalidArgument: a range that is none, too long or not in quarters of an hour.
            TooManyReports: of the customer, as many as may be are being made.
        """
        now = self._clock()
        with self._database.autocommit() as conn:
            customer = _customer(conn, customer_id, now)
            period = period_of(conn, customer, start, end)
        if period.end - period.start > _AT_ONCE:
            return self._start(customer, period, now)
        with telemetry.customer(customer_id):
            return self._maker.make(customer, period)

    def stored(self, customer_id: str, report_id: str) -> StoredReport:
        """Return how far a job is with a report, or the report.

        Raises:
            CustomerNotFound: there is none of this id.
            ReportNotFound: the customer has no such report, or not any more.
        """
        with self._database.autocommit() as conn:
            customer = _customer(conn, customer_id, self._clock())
            found = reports.find(conn, customer.number, report_id)
        if found is None:
            raise ReportNotFound(customer_id, report_id)
        return found

    def make(self, job: Job, encode: Callable[[UsageReport], bytes]) -> None:
        """Make a long report, and store it. Whatever ends the last attempt, the report says that there is none.

        Args:
            job: names the report and its customer.
            encode: of the report as it is stored.

        Raises:
            Exception: what went wrong; to be run again, unless it was the last attempt.
        """
        customer_id, report_id = job.payload["customer_id"], job.payload["report_id"]
        with self._database.autocommit() as conn:
            customer = _customer(conn, customer_id, self._clock())
            stored = reports.find(conn, customer.number, report_id)
        if stored is None or stored.state != reports.RUNNING:
            return

        def show(percent: int) -> None:
            with self._database.transaction() as conn:
                job.fence(conn)
                reports.progress(conn, customer.number, report_id, percent)

        with telemetry.customer(customer_id):
            try:
                encoded = encode(self._maker.make(customer, stored.period, by=BY_JOB, show=show))
                with self._database.transaction() as conn:
                    reports.finish(conn, customer.number, report_id, encoded, self._clock())
                    job.finish(conn)
            except (LeaseLost, Postpone):
                raise
            except BaseException as error:  # The time limit and the worker's stop are no `Exception`.
                if not self._settled(job, customer.number, report_id, error):
                    raise
                return
            _log.info("made a usage report", extra={"report_id": report_id})

    def _settled(self, job: Job, customer: int, report_id: str, error: BaseException) -> bool:
        """Store why there is no report, if there is no other attempt; say whether the job is done with that.

        Where the request is at fault, it is at once. Else the runner counts the job as dead and tells of the error.
        """
        is_final = isinstance(error, InvalidArgument)
        if is_final or job.attempt >= MAKE_ATTEMPTS:
            with self._database.transaction() as conn:
                job.fence(conn)
                reports.fail(conn, customer, report_id, _told(error), self._clock())
                if is_final:
                    job.finish(conn)
        return is_final

    def _start(self, customer: Customer, period: Period, now: datetime) -> StoredReport:
        with self._database.transaction() as conn:
            reports.lock_customer(conn, customer.number)
            running_since = now - GIVEN_UP_AFTER
            found = reports.newest(conn, customer.number, period, made_since=now - _FRESH, running_since=running_since)
            if found is None:
                if reports.running(conn, customer.number, running_since) >= _MOST_RUNNING:
                    raise TooManyReports(customer.id, _MOST_RUNNING)
                found = StoredReport(new_id("rep"), period, reports.RUNNING, 0, "", b"")
                reports.add(conn, customer.number, found.id, period, now)
                payload = {"customer_id": customer.id, "report_id": found.id}
                self._outbox.put(conn, job=MAKE_REPORT, payload=payload)
        return found


def _told(error: BaseException) -> str:
    """Return what the customer is told; what is inside stays inside."""
    if isinstance(error, ServiceError):
        return error.message
    if isinstance(error, Exception):
        return "the report could not be made; ask for its range again"
    return "making the report took too long; ask for a shorter range"


def _customer(conn: sa.Connection, customer_id: str, now: datetime) -> Customer:
    found = customers.find(conn, customer_id, now)
    if found is None:
        raise CustomerNotFound(customer_id)
    return found
