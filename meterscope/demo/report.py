"""The demo's report: what happened, in tables."""

from collections.abc import Iterable
from decimal import Decimal
from typing import Final

from rich import box
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from meterscope.client import Outcome
from meterscope.demo import watching
from meterscope.demo.backend import decimal
from meterscope.demo.chapter import Chapter
from meterscope.payments.v1 import payment_service_pb2 as payment_pb

_TOP: Final = 5
_GB: Final = 10**9
_STATES: Final = {
    payment_pb.ATTEMPT_STATE_SUCCEEDED: "[green]succeeded[/]",
    payment_pb.ATTEMPT_STATE_FAILED: "[red]failed[/]",
}


def show(chapter: Chapter, console: Console) -> None:
    """Print the tables: events, invoices, payments, alerts, one line explained."""
    parts = (_events(chapter), _invoices(chapter), _payments(chapter), _alerts(chapter), _explanation(chapter))
    for part in parts:
        console.print()
        console.print(part)


def news(chapter: Chapter) -> str:
    """Return one sentence on what a further run added; empty for the first one."""
    if chapter.is_first_run:
        return ""
    accepted = chapter.report.outcomes[Outcome.ACCEPTED]
    added = [f"{accepted:,} events"] + [f"{seen.new} {name}" for name, seen in chapter.seen.items()]
    again = f"a further bill run over {chapter.month} found {chapter.due_again} periods due"
    if accepted == chapter.created == chapter.due_again == 0 and not any(seen.new for seen in chapter.seen.values()):
        duplicates = chapter.report.outcomes[Outcome.DUPLICATE]
        return f"Nothing new: all {duplicates:,} events of customers were known already, {again}, no invoice, payment or alert was made twice."
    return f"An earlier run ended early; this one added {', '.join(added)}; {again}."


def _table(title: str, *columns: str, right: Iterable[int] = ()) -> Table:
    table = Table(
        *columns, title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, header_style="dim"
    )
    for index in right:
        table.columns[index].justify = "right"
    return table


def _events(chapter: Chapter) -> RenderableType:
    table = _table("Events", "log", "lines", "moved by", "into", right=(1, 2))
    for log in chapter.logs:
        days = chapter.state.shift_days[log.path.name]
        table.add_row(log.path.name, f"{log.lines:,}", f"{days:+,} days", f"{chapter.month} ({chapter.state.zone})")
    counts = _table("", "", "events", "", right=(1,))
    outcomes = chapter.report.outcomes
    sent = f"{chapter.traffic.bytes.total():,} bytes, {chapter.report.events_per_second:,.0f} events/s"
    rows = (
        ("in", chapter.report.events, sent),
        ("accepted", outcomes[Outcome.ACCEPTED], "new, of customers"),
        ("duplicate", outcomes[Outcome.DUPLICATE], "stored before: counted once"),
        ("quarantined", outcomes[Outcome.QUARANTINED], "of clients who were no customers"),
        ("replayed", chapter.replayed, f"out of quarantine, of {len(chapter.state.latecomers)} clients made customers"),
        ("still held", chapter.held, "of clients who never became customers"),
    )
    for name, number, remark in rows:
        counts.add_row(name, f"{number:,}", f"[dim]{remark}[/]")
    return Group(table, counts)


def _invoices(chapter: Chapter) -> RenderableType:
    columns = ("number", "customer", "requests", "GB", "fee ₹", "requests ₹", "traffic ₹", "total ₹")
    table = _table(f"Invoices of {chapter.month}, plan {chapter.plan['id']}, all paid", *columns, right=range(2, 8))
    for column in table.columns[:2]:
        column.no_wrap = True
    ranked = sorted(chapter.invoices.items(), key=lambda item: -decimal(item[1].total))
    for key, invoice in ranked[:_TOP]:
        amounts = [f"{decimal(money):,.2f}" for money in (*(line.amount for line in invoice.lines), invoice.total)]
        used = (f"{chapter.traffic.requests[key]:,}", f"{Decimal(chapter.traffic.bytes[key]) / _GB:.3f}")
        table.add_row(invoice.number, key, *used, *amounts)
    if len(ranked) > _TOP:
        table.add_row("", f"[dim]… and {len(ranked) - _TOP} more[/]")
    total = sum((decimal(invoice.total) for invoice in chapter.invoices.values()), Decimal(0))
    table.add_section()
    table.add_row(f"{len(ranked)} invoices", *[""] * 6, f"{total:,.2f}", style="bold")
    return table


def _payments(chapter: Chapter) -> RenderableType:
    table = _table("Payments", "payment", "customer", "amount", "attempts", right=(2,))
    declined = chapter.payments[chapter.state.declined]
    attempts = [
        f"{attempt.number}. {_STATES.get(attempt.state, str(attempt.state))}"
        + (f" ({attempt.failure_reason})" if attempt.failure_reason else "")
        for attempt in declined.attempts
    ]
    waited = declined.attempts[-1].start_time.ToDatetime() - declined.attempts[0].start_time.ToDatetime()
    retried = "\n".join(attempts) + f", {waited.total_seconds():.1f} s later"
    table.add_row(declined.id, chapter.state.declined, _rupees(decimal(declined.amount)), retried)
    others = [payment for key, payment in chapter.payments.items() if key != chapter.state.declined]
    paid = sum((decimal(payment.amount) for payment in others), Decimal(0))
    table.add_row(f"[dim]… and {len(others)} more[/]", "", _rupees(paid), "1. [green]succeeded[/], each")
    currency = chapter.balance.currencies[0]
    balance = (
        f"Ledger: debits {_rupees(decimal(currency.debits))} less credits {_rupees(decimal(currency.credits))} "
        f"= {_rupees(decimal(currency.difference))}"
    )
    return Group(table, Text(f"  {balance}"))


def _alerts(chapter: Chapter) -> RenderableType:
    table = _table("Alerts", "type", "alerts", "to the log", "to the webhook", "the latest says", right=(1, 2, 3))
    for kind in (watching.THRESHOLD, watching.DECLINED, watching.PAID):
        found = chapter.watch.of(kind)
        told = [str(sum(len(chapter.watch.delivered(alert, to)) for alert in found)) for to in watching.CHANNEL_KINDS]
        table.add_row(kind, str(len(found)), *told, found[0].title if found else "")
    return Group(
        table, Text("  Each webhook's signature (Standard Webhooks) was verified by the receiver.", style="dim")
    )


def _explanation(chapter: Chapter) -> RenderableType:
    explanation = chapter.explanation
    invoice = chapter.invoices[chapter.state.customers[0]]
    line = explanation.line
    steps = [Text(f"• {step}") for step in explanation.steps]
    events = Table("event", "time (UTC)", "adds", "trace", box=None, header_style="dim", padding=(0, 2, 0, 0))
    for event in explanation.events:
        events.add_row(event.id, f"{event.time.ToDatetime():%Y-%m-%d %H:%M:%S}", event.quantity.value, event.trace_id)
    events.add_row(f"[dim]… of {line.event_count}[/]")
    samples = Text("sample traces\n", style="dim").append("\n".join(line.sample_trace_ids), style="default")
    title = f"Invoice {invoice.number}, line {line.id}: {line.description}, {_rupees(decimal(line.amount))}"
    return Panel(
        Group(*steps, Text(), events, Text(), samples), title=title, title_align="left", box=box.ROUNDED, expand=False
    )


def _rupees(amount: Decimal) -> str:
    return f"₹ {amount:,.2f}"
