"""Bill runs: finding what is due and putting one job for each period."""

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from meterscope.billing.v1 import bill_run_service_pb2 as pb
from services.billing.convert import bill_run as convert
from services.billing.convert.times import instant
from services.billing.domain.bill_run import BillRun, Item
from services.billing.errors import BillRunNotFound
from services.billing.store import bill_runs, subscriptions
from services.kit import paging, telemetry
from services.kit.db import Database
from services.kit.errors import InvalidArgument
from services.kit.idempotency import once
from services.kit.ids import new_id
from services.kit.outbox import Job, Outbox

PLAN_JOB: Final = "plan_bill_run"
BILL_JOB: Final = "bill_period"

# Subscriptions looked at in one transaction: at most 14 periods each, within the 5 s that a transaction may take.
SLICE: Final = 250


class BillRuns:
    """Starts and shows bill runs."""

    def __init__(
        self, database: Database, outbox: Outbox, clock: Callable[[], datetime], *, slice_size: int = SLICE
    ) -> None:
        """Prepare.

        Args:
            database: billing's.
            outbox: where the jobs are put.
            clock: says what time it is.
            slice_size: subscriptions looked at in one transaction.
        """
        self._database = database
        self._outbox = outbox
        self._clock = clock
        self._slice_size = slice_size

    def start(self, request: pb.StartBillRunRequest) -> pb.BillRun:
        """Start to bill what is due. The first slice of jobs is put at once, the others by a job of their own.

        Raises:
            InvalidArgument: no request id, or `as_of` lies ahead.
        """
        if not request.request_id:
            raise InvalidArgument.at("request_id", "is missing; a bill run moves money and is started once by its id")
        with self._database.transaction() as conn:
            return once(
                conn,
                method="StartBillRun",
                request_id=request.request_id,
                request=request,
                response_type=pb.BillRun,
                act=lambda: convert.bill_run(self._start(conn, request)),
            )

    def plan_on(self, job: Job) -> None:
        """Put the next slice of a run's jobs."""
        with self._database.transaction() as conn:
            self._plan_slice(conn, job.payload["bill_run_id"])
            job.finish(conn)

    def get(self, bill_run_id: str) -> BillRun:
        """Return a bill run with its progress. Raises BillRunNotFound."""
        with self._database.transaction() as conn:
            found = bill_runs.get(conn, bill_run_id)
        if found is None:
            raise BillRunNotFound(bill_run_id)
        return found

    def page(self, *, page_size: int, page_token: str) -> tuple[list[BillRun], str]:
        """Return a page of bill runs, newest first, and the next page's token."""
        size = paging.page_size(page_size)
        before = paging.decode_token(page_token, {})
        with self._database.transaction() as conn:
            found = bill_runs.page(conn, before=before[0] if before else None, limit=size + 1)
        return found[:size], paging.encode_token([found[size - 1].id], {}) if len(found) > size else ""

    def _start(self, conn: sa.Connection, request: pb.StartBillRunRequest) -> BillRun:
        now = self._clock()
        as_of = instant(request.as_of, "as_of") if request.HasField("as_of") else now
        if as_of > now:
            raise InvalidArgument.at("as_of", f"{as_of.isoformat()} lies ahead; leave it out for now")
        bill_run_id = new_id("run")
        trace_id = telemetry.current_trace_id()
        bill_runs.add(conn, bill_run_id=bill_run_id, as_of=as_of, trace_id=trace_id, now=now)
        self._plan_slice(conn, bill_run_id)
        started = bill_runs.get(conn, bill_run_id)
        if started is None:
            raise BillRunNotFound(bill_run_id)
        return started

    def _plan_slice(self, conn: sa.Connection, bill_run_id: str) -> None:
        as_of, after = bill_runs.planned_to(conn, bill_run_id)
        if after is None:
            return
        found = subscriptions.due(conn, as_of=as_of, after=after, limit=self._slice_size)
        due = [
            Item(bill_run_id, subscription.customer_id, subscription.id, number, period)
            for subscription in found
            for number, period in subscription.schedule.ended(subscription.period_number, as_of)
        ]
        taken = bill_runs.add_items(conn, due)
        # Periods of one subscription are sealed in their order.
        self._outbox.put_all(conn, job=BILL_JOB, entries=[(item.subscription_id, _payload(item)) for item in taken])
        last = found[-1].id if len(found) == self._slice_size else None
        bill_runs.plan_to(conn, bill_run_id, last)
        if last is not None:
            self._outbox.put(conn, job=PLAN_JOB, payload={"bill_run_id": bill_run_id})


def _payload(item: Item) -> dict[str, Any]:
    return {
        "bill_run_id": item.bill_run_id,
        "subscription_id": item.subscription_id,
        "period_number": item.period_number,
    }
