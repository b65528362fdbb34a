"""What happened in one run, for the report."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from meterscope.billing.v1 import invoice_service_pb2 as invoice_pb
from meterscope.billing.v1 import ledger_service_pb2 as ledger_pb
from meterscope.demo.month import Month
from meterscope.demo.state import State
from meterscope.demo.traffic import Log, Traffic
from meterscope.demo.watching import Watch
from meterscope.logimport import Report
from meterscope.payments.v1 import payment_service_pb2 as payment_pb


@dataclass
class Seen:
    """How much there was of something before this run, and is now."""

    before: int
    now: int

    @property
    def new(self) -> int:
        """How much this run added."""
        return self.now - self.before


@dataclass
class Chapter:
    """All that the report tells of.

    Attributes:
        state: the demo's choices.
        month: the month that is billed.
        traffic: what the demo itself counted in the logs.
        logs: the logs.
        plan: the plan, as in REST JSON.
        trace_file: where the spans are.
        is_first_run: whether no run on this data folder came to its end before.
        gateway: its host:port.
        ids: customer ids by external key.
        created: how many customers this run created.
        report: what became of the import.
        replayed: how many held events went in after their customers were created.
        held: how many events are in quarantine at the end.
        bill_run_trace: the trace of the bill run.
        due_again: how many periods a further bill run found due; None in the first run.
        invoices: the month's invoices by customer key.
        payments: their payments by customer key.
        balance: the ledger.
        watch: alerts and notifications.
        explanation: of one invoice line of the busiest customer.
        page: the busiest customer's invoice, as HTML.
        seen: how many invoices, payments and alerts there were before this run, and are now.
    """

    state: State
    month: Month
    traffic: Traffic
    logs: list[Log]
    plan: dict[str, Any]
    trace_file: Path
    is_first_run: bool
    gateway: str = ""
    ids: dict[str, str] = field(default_factory=dict)
    created: int = 0
    report: Report = field(default_factory=Report)
    replayed: int = 0
    held: int = 0
    bill_run_trace: str = ""
    due_again: int | None = None
    invoices: dict[str, invoice_pb.Invoice] = field(default_factory=dict)
    payments: dict[str, payment_pb.Payment] = field(default_factory=dict)
    balance: ledger_pb.TrialBalance = field(default_factory=ledger_pb.TrialBalance)
    watch: Watch = field(default_factory=lambda: Watch([], {}))
    explanation: invoice_pb.InvoiceLineExplanation = field(default_factory=invoice_pb.InvoiceLineExplanation)
    page: Path = Path()
    seen: dict[str, Seen] = field(default_factory=dict)
