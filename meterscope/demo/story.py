"""The demo from beginning to end."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import httpx
import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from meterscope.billing.v1 import invoice_service_pb2 as invoices
from meterscope.demo import closing, enrolment, metering, stack, state, telemetry, traffic, watching
from meterscope.demo.backend import Backend
from meterscope.demo.chapter import Chapter, Seen
from meterscope.demo.errors import DemoFailed
from meterscope.demo.month import Month
from meterscope.demo.receiver import Receiver
from meterscope.demo.stack import Stack
from meterscope.demo.state import State
from meterscope.demo.traffic import Log, Traffic

ZONE: Final = "Asia/Kolkata"
CUSTOMERS: Final = 20
LATECOMERS: Final = 5
_COLLECTOR: Final = "OTEL_EXPORTER_OTLP_ENDPOINT"
# Whose first payment fails: the second busiest.
_DECLINED_RANK: Final = 1


@dataclass(frozen=True)
class Options:
    """How to run the demo.

    Attributes:
        data_dir: where the state lies, Meterscope's and the demo's.
        examples: the folder with the logs and the plan.
        port: the gateway's port, if the demo starts Meterscope.
        keep: leave Meterscope running.
        limit_lines: use only so many lines of each log.
        trace_file: where all processes write their spans.
        token: the service token, if the services want one.
        environ: the environment for Meterscope.
    """

    data_dir: Path
    examples: Path
    port: int | None
    keep: bool
    limit_lines: int | None
    trace_file: Path
    token: str | None
    environ: Mapping[str, str]


class Story:
    """One run of the demo. Every step checks what it can against the input."""

    def __init__(self, options: Options, console: Console) -> None:
        self._options = options
        self._console = console

    def run(self) -> tuple[Chapter, Stack]:
        """Run it and return what happened, with the running Meterscope; the caller stops that.

        Raises:
            DemoFailed: something is not as the input says.
        """
        chapter = self._open()
        spans = telemetry.setup(self._options.trace_file, self._options.environ.get(_COLLECTOR))
        running = self._start()
        try:
            chapter.gateway = running.addresses["gateway"]
            with ExitStack() as open_ones:
                open_ones.callback(spans.shutdown)
                backend = open_ones.enter_context(Backend(running.addresses, token=self._options.token))
                receiver = open_ones.enter_context(self._receive(backend, chapter.state, spans))
                self._live(chapter, backend, receiver)
        except BaseException:
            running.stop()
            raise
        chapter.state.save(self._options.data_dir)
        return chapter, running

    def _open(self) -> Chapter:
        options = self._options
        logs, counted = traffic.count(options.examples / "access-logs", options.limit_lines)
        plan = orjson.loads((options.examples / "plans" / "web-inr.json").read_bytes())
        chosen = state.load(options.data_dir)
        if chosen is None:
            chosen = _choose(logs, counted, plan, options.limit_lines)
            chosen.save(options.data_dir)
        elif chosen.limit_lines != options.limit_lines:
            raise DemoFailed(
                f"the demo on {options.data_dir} was begun with --limit-lines {chosen.limit_lines or '(all)'}: "
                "repeat that, or choose another --data-dir"
            )
        plan["limits"][0]["limit"] = chosen.request_limit
        month = Month.parse(chosen.month, chosen.zone)
        return Chapter(chosen, month, counted, logs, plan, options.trace_file, is_first_run=chosen.runs == 0)

    def _start(self) -> Stack:
        data_dir = self._options.data_dir
        with self._step("Meterscope") as tell:
            found = stack.find(data_dir)
            running = found or stack.start(data_dir, self._options.port, self._options.environ)
            tell("runs already" if found else "started: PostgreSQL, Valkey, 4 services, 4 workers, gateway")
        return running

    def _receive(self, backend: Backend, chosen: State, spans: telemetry.Telemetry) -> Receiver:
        """Listen where the first run's channel sends to; elsewhere, by another channel, if that port is taken."""
        listen = partial(Receiver, secret=chosen.webhook_secret, data_dir=self._options.data_dir, tracer=spans.receiver)
        try:
            receiver = listen(port=chosen.webhook_port)
        except OSError:
            receiver = listen(port=0)
            if chosen.runs:
                # All was delivered before, and nothing new will come: another channel would be one too many.
                return receiver
        if not enrolment.find_channel(backend, receiver.url):
            enrolment.create_channel(backend, chosen, receiver.url)
        chosen.webhook_port = receiver.port
        chosen.save(self._options.data_dir)
        return receiver

    def _live(self, chapter: Chapter, backend: Backend, receiver: Receiver) -> None:
        before = _sizes(backend)
        self._enrol(chapter, backend)
        self._import(chapter, backend)
        self._replay(chapter, backend)
        self._alert(chapter, backend, receiver)
        self._close(chapter, backend)
        self._settle(chapter, backend, receiver)
        chapter.seen = {name: Seen(before[name], now) for name, now in _sizes(backend).items()}
        chapter.explanation = _explain(chapter, backend)
        chapter.page = _save_page(chapter, self._options.data_dir)
        chapter.state.runs += 1

    def _enrol(self, chapter: Chapter, backend: Backend) -> None:
        with self._step("Customers") as tell:
            enrolment.prepare(backend, chapter.state, chapter.plan)
            known = [key for key in chapter.state.everybody if enrolment.find_customer(backend, key)]
            # Of an earlier run all are there, the latecomers too.
            keys = list(dict.fromkeys([*chapter.state.customers, *known]))
            made = enrolment.enrol(backend, chapter.state, chapter.plan, keys)
            chapter.ids, chapter.created = made.ids, made.created
            tell(f"{made.created} new, {len(keys) - made.created} there already; plan {chapter.plan['id']}")

    def _import(self, chapter: Chapter, backend: Backend) -> None:
        with _bar(self._console) as bar:
            task = bar.add_task("Access logs", total=chapter.traffic.requests.total())
            chapter.report = metering.import_logs(
                backend, chapter.state, chapter.logs, lambda lines: bar.advance(task, lines)
            )
        metering.check_import(chapter.report, chapter.traffic, list(chapter.ids))
        rate = f"{chapter.report.events_per_second:,.0f} events/s"
        self._done("Access logs", f"{chapter.report.events:,} events acknowledged, {rate}", chapter.report.seconds)

    def _replay(self, chapter: Chapter, backend: Backend) -> None:
        with self._step("Latecomers") as tell:
            held = metering.held(backend)
            made = enrolment.enrol(backend, chapter.state, chapter.plan, chapter.state.latecomers)
            metering.replay(backend, chapter.state.latecomers)
            chapter.ids |= made.ids
            chapter.created += made.created
            chapter.held = metering.held(backend)
            chapter.replayed = held - chapter.held
            metering.check_totals(backend, chapter.ids, chapter.traffic, chapter.month)
            others = chapter.traffic.requests.total() - chapter.traffic.of(list(chapter.ids))
            if chapter.held != others:
                raise DemoFailed(f"{chapter.held:,} events in quarantine instead of {others:,}")
            tell(f"{made.created} new customers, {chapter.replayed} held events replayed; all totals equal the input")

    def _alert(self, chapter: Chapter, backend: Backend, receiver: Receiver) -> None:
        with self._step("Limit") as tell:
            over = _over_limit(chapter.traffic, chapter.state)
            watching.wait_until_told(backend, receiver, {watching.THRESHOLD: len(over)})
            names = ", ".join(f"{key} ({chapter.traffic.requests[key]})" for key in over)
            tell(f"{chapter.state.request_limit} requests crossed by {names}: alert to log and signed webhook")

    def _close(self, chapter: Chapter, backend: Backend) -> None:
        with self._step("Close") as tell:
            chosen, month = chapter.state, chapter.month
            run = closing.close(backend, month, chosen.request_id("close", chosen.month))
            chapter.bill_run_trace = run.trace_id
            if not chapter.is_first_run:
                again = closing.close(backend, month, chosen.request_id("close", chosen.month, str(chosen.runs)))
                chapter.due_again = again.due
            chapter.invoices = closing.wait_until_paid(backend, run, chapter.ids)
            closing.check_invoices(chapter.invoices, chapter.plan, chapter.traffic)
            found = closing.all_payments(backend)
            chapter.payments = closing.check_payments(found, chapter.invoices, chosen.declined)
            chapter.balance = closing.check_ledger(backend, chapter.invoices)
            tell(f"{len(chapter.invoices)} invoices for {month}, all paid and as the plan says; the ledger is at zero")

    def _settle(self, chapter: Chapter, backend: Backend, receiver: Receiver) -> None:
        with self._step("Notifications") as tell:
            expected = {
                watching.THRESHOLD: len(_over_limit(chapter.traffic, chapter.state)),
                watching.DECLINED: 1,
                watching.PAID: len(chapter.invoices),
            }
            chapter.watch = watching.wait_until_told(backend, receiver, expected)
            tell(f"{sum(expected.values())} alerts, each delivered once to the log and once to the webhook")

    @contextmanager
    def _step(self, name: str) -> Iterator[Callable[[str], None]]:
        told: list[str] = []
        started = perf_counter()
        with self._console.status(f"{name} …"):
            yield told.append
        self._done(name, "".join(told), perf_counter() - started)

    def _done(self, name: str, told: str, seconds: float) -> None:
        self._console.print(f"[green]✓[/] [bold]{name:<14}[/] {told} [dim]({seconds:.1f} s)[/]", highlight=False)


def _choose(logs: list[Log], counted: Traffic, plan: Mapping[str, Any], limit_lines: int | None) -> State:
    month = Month.last_closed(datetime.now(UTC), ZONE)
    busiest = counted.busiest
    limit = int(plan["limits"][0]["limit"])
    most = counted.requests[busiest[0]]
    return State(
        zone=ZONE,
        month=str(month),
        shift_days={log.path.name: month.shift(log.first, log.last).days for log in logs},
        limit_lines=limit_lines,
        customers=busiest[:CUSTOMERS],
        latecomers=busiest[CUSTOMERS : CUSTOMERS + LATECOMERS],
        declined=busiest[_DECLINED_RANK],
        # Of a cut input nobody might reach the plan's own limit.
        request_limit=str(min(limit, most)),
    )


def _over_limit(counted: Traffic, chosen: State) -> list[str]:
    return [key for key in chosen.everybody if counted.requests[key] >= int(chosen.request_limit)]


def _sizes(backend: Backend) -> dict[str, int]:
    return {
        "invoices": len(closing.all_invoices(backend)),
        "payments": len(closing.all_payments(backend)),
        "alerts": len(watching.all_alerts(backend)),
    }


def _explain(chapter: Chapter, backend: Backend) -> invoices.InvoiceLineExplanation:
    invoice = chapter.invoices[chapter.state.customers[0]]
    line = next(line for line in invoice.lines if line.meter == "requests")
    request = invoices.ExplainInvoiceLineRequest(invoice_id=invoice.id, line_id=line.id, page_size=3)
    return backend.invoices.ExplainInvoiceLine(request)


def _save_page(chapter: Chapter, data_dir: Path) -> Path:
    """Save the busiest customer's invoice as people see it."""
    invoice = chapter.invoices[chapter.state.customers[0]]
    url = f"http://{chapter.gateway}/v1/invoices/{invoice.id}:render"
    answer = httpx.get(url, params={"format": "html"}, timeout=10)
    answer.raise_for_status()
    page = data_dir / "demo-invoice.html"
    page.write_bytes(answer.content)
    return page


def _bar(console: Console) -> Progress:
    columns = (TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
