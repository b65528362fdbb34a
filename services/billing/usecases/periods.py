"""Billing a period: usage seals it, it is priced, and one transaction freezes the invoice and posts it."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import sqlalchemy as sa
from opentelemetry import trace

from services.billing.clients import Usage
from services.billing.domain.bill_run import Item, ItemState
from services.billing.domain.customer import Customer
from services.billing.domain.invoice import Invoice, assemble, finalized
from services.billing.domain.ledger import invoice_posting
from services.billing.domain.line import Charged, InvoiceLine, adjustment_lines, lines_of_period
from services.billing.domain.numbering import Seller
from services.billing.domain.plan import Plan
from services.billing.domain.seal import Seal
from services.billing.domain.subscription import Subscription
from services.billing.errors import BillingBrokenOff, CustomerNotFound, EarlierPeriodOpen, SubscriptionNotFound
from services.billing.metrics import Instruments
from services.billing.store import bill_runs, customers, invoices, ledger, plans, subscriptions
from services.billing.usecases.followups import COLLECT_JOB
from services.kit import telemetry
from services.kit.db import Database
from services.kit.errors import ServiceError
from services.kit.exemplars import KEEP
from services.kit.ids import new_id
from services.kit.outbox import Job, LeaseLost, Outbox

_log = logging.getLogger(__name__)

_UNEXPECTED: Final = "something went wrong on our side; the trace and the logs of the job name it"


@dataclass(frozen=True)
class _Work:
    """All that billing a period needs to know before usage is asked."""

    item: Item
    customer: Customer
    subscription: Subscription
    plan: Plan


class Periods:
    """The job that bills a period. Run again, it finds the invoice and makes no second one."""

    def __init__(
        self,
        database: Database,
        outbox: Outbox,
        usage: Usage,
        *,
        seller: Seller,
        max_attempts: int,
        instruments: Instruments,
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._outbox = outbox
        self._usage = usage
        self._seller = seller
        self._max_attempts = max_attempts
        self._instruments = instruments
        self._clock = clock
        self._tracer = trace.get_tracer("services.billing")

    def bill(self, job: Job) -> None:
        """Bill the period. After the last attempt the item of the bill run says why it failed, and the job ends.

        The job must not stay dead: rows of a subscription run in their order, and it would hold up every later period.
        """
        started = time.perf_counter()
        work = self._work(job)
        with telemetry.customer(work.customer.id):
            try:
                self._bill(job, work, started)
            except LeaseLost:
                raise
            except Exception as error:
                # An earlier period that is open has failed for good: this job would not have its turn otherwise.
                if job.attempt < self._max_attempts and not isinstance(error, EarlierPeriodOpen):
                    raise
                self._instruments.invoice_failed(time.perf_counter() - started)
                self._give_up(job, work.item, error)

    def _work(self, job: Job) -> _Work:
        payload = job.payload
        with self._database.transaction() as conn:
            subscription = subscriptions.get(conn, payload["subscription_id"])
            if subscription is None:
                raise SubscriptionNotFound(payload["subscription_id"])
            customer = customers.get(conn, subscription.customer_id)
            if customer is None:
                raise CustomerNotFound(subscription.customer_id)
            plan = plans.version(conn, subscription.plan_id, subscription.plan_version)
        number = payload["period_number"]
        item = Item(payload["bill_run_id"], customer.id, subscription.id, number, subscription.schedule.period(number))
        return _Work(item, customer, subscription, plan)

    def _bill(self, job: Job, work: _Work, started: float) -> None:
        trace.get_current_span().set_attribute(KEEP, value=True)
        if job.attempt > self._max_attempts:
            # One attempt more could end the process once more, and the job were dead.
            raise BillingBrokenOff(self._max_attempts)
        if work.item.period_number > work.subscription.period_number:
            raise EarlierPeriodOpen(work.subscription.id, work.subscription.current_period.end.isoformat())
        with self._tracer.start_as_current_span("seal"):
            seal = self._usage.seal(work.customer.id, work.item.period, job.id)
        if seal.quarantined_events:
            _log.warning("events are in quarantine at the seal", extra={"quarantined_events": seal.quarantined_events})
        with self._tracer.start_as_current_span("price"):
            lines = lines_of_period(work.plan, work.item.period, seal)
        invoice = self._finalize(job, work, seal, lines)
        if invoice is not None:
            self._instruments.invoice_made(invoice, time.perf_counter() - started)
            _log.info("invoice finalized", extra=_fields(invoice))

    def _finalize(self, job: Job, work: _Work, seal: Seal, lines: list[InvoiceLine]) -> Invoice | None:
        """Freeze the invoice and post it, in one transaction; None if the period has its invoice."""
        now = self._clock()
        with (
            self._tracer.start_as_current_span("finalize", attributes={KEEP: True}),
            self._database.transaction() as conn,
        ):
            subscription = subscriptions.get(conn, work.subscription.id, lock=True) or work.subscription
            invoice = None
            if not invoices.exists(conn, subscription.id, work.item.period):
                invoice = self._write(conn, work, subscription, seal, lines, now)
            bill_runs.end_item(conn, work.item, ItemState.INVOICED, now=now)
            job.finish(conn)
        return invoice

    def _write(
        self,
        conn: sa.Connection,
        work: _Work,
        subscription: Subscription,
        seal: Seal,
        lines: list[InvoiceLine],
        now: datetime,
    ) -> Invoice:
        adjustments = adjustment_lines(
            self._charged(conn, work, seal), seal, work.plan.terms.currency, first=len(lines) + 1
        )
        draft = assemble(
            [*lines, *adjustments],
            invoice_id=new_id("inv"),
            customer=work.customer,
            subscription_id=subscription.id,
            plan=work.plan,
            bill_run_id=work.item.bill_run_id,
            period=work.item.period,
            seal_id=seal.id,
            trace_id=telemetry.current_trace_id(),
        )
        invoices.add_draft(conn, draft, self._seller)
        ledger.post(conn, invoice_posting(draft), now)
        subscriptions.advance(conn, subscription)
        if draft.amount_due:
            self._outbox.put(conn, job=COLLECT_JOB, payload={"invoice_id": draft.id})
        # The series is locked from here to the commit, so this comes last.
        invoice = finalized(draft, invoices.next_number(conn, self._seller, now), now)
        invoices.finalize(conn, invoice)
        return invoice

    def _charged(self, conn: sa.Connection, work: _Work, seal: Seal) -> list[Charged]:
        """Return what was charged for the periods that have late usage. A period without an invoice is billed whole."""
        sums = invoices.charged(conn, work.customer.id, [late.period_end for late in seal.late_usage])
        return [
            Charged(
                period=part.period,
                component=plans.version(conn, part.plan_id, part.plan_version).component(part.component_id),
                quantity=part.quantity,
                amount=part.amount,
                event_count=part.event_count,
            )
            for part in sums
        ]

    def _give_up(self, job: Job, item: Item, error: Exception) -> None:
        _log.error("a period could not be billed", extra={"subscription_id": item.subscription_id}, exc_info=error)
        trace.get_current_span().record_exception(error)
        message = error.message if isinstance(error, ServiceError) else _UNEXPECTED
        with self._database.transaction() as conn:
            bill_runs.end_item(conn, item, ItemState.FAILED, now=self._clock(), message=message)
            job.finish(conn)


def _fields(invoice: Invoice) -> dict[str, str]:
    return {
        "invoice_id": invoice.id,
        "invoice_number": invoice.number,
        "amount": str(invoice.total),
        "currency": invoice.currency,
    }
