"""Every process by every signal on the real backends, and one trace from a REST call to the webhook, edge by edge."""

import contextlib
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from eventually import eventually
from psycopg import sql

from meterscope.supervisor.databases import postgres_url
from meterscope.supervisor.ports import OFFSETS
from tests.e2e.running import Running
from tests.ports import free_ports
from tests.stack.conftest import RealStack
from tests.stack.webhook_receiver import WebhookReceiver
from tests.usage.usage_harness import Client

pytestmark = pytest.mark.stack

INGEST = "meterscope.usage.v1.EventService/IngestEvents"
RAISE = "meterscope.alerts.v1.AlertService/RaiseSignal"
START = "meterscope.billing.v1.BillRunService/StartBillRun"
SEAL = "meterscope.usage.v1.UsageService/SealUsage"
PAY = "meterscope.payments.v1.PaymentService/CreatePayment"
RECORD = "meterscope.billing.v1.InvoiceService/RecordPayment"

# From the call to the webhook, each span the child of the one before: service, operation, kind.
JOURNEY = [
    ("gateway", "POST /v1/events:ingest", "server"),
    ("gateway", INGEST, "client"),
    ("usage", INGEST, "server"),
    ("usage-worker", "threshold journeys 100%", "producer"),
    ("usage-worker", "process raise_signal", "consumer"),
    ("usage-worker", RAISE, "client"),
    ("alerts", RAISE, "server"),
    ("alerts", "send deliver", "producer"),
    ("alerts-worker", "process deliver", "consumer"),
    ("alerts-worker", "POST", "client"),
]

# Of a bill run, the ways from process to process: each has to be there, and no other kind of way.
BILL_RUN = {
    ("client", START, "billing", START),
    ("billing", "send bill_period", "billing-worker", "process bill_period"),
    ("billing-worker", SEAL, "usage", SEAL),
    ("billing-worker", PAY, "payments", PAY),
    ("payments", "send attempt_payment", "payments-worker", "process attempt_payment"),
    ("payments-worker", RECORD, "billing", RECORD),
    ("billing", "send raise_signal", "billing-worker", "process raise_signal"),
    ("billing-worker", RAISE, "alerts", RAISE),
    ("alerts", "send deliver", "alerts-worker", "process deliver"),
    ("alerts-worker", "POST", "webhook-receiver", "POST /alerts"),
}
WAYS = {("client", "server"), ("producer", "consumer")}

SERVED = "rpc_server_call_duration_seconds_count"
CALLED = "rpc_client_call_duration_seconds_count"
ASKED = "db_client_operation_duration_seconds_count"
# What each process says of itself, besides how long its calls and statements take.
METRICS = {
    "usage": ["billing_events_ingested_total", SERVED, ASKED],
    "billing": ["billing_customers_created_total", SERVED, ASKED],
    "payments": ["billing_db_connection_pool", SERVED, ASKED],
    "alerts": ["billing_db_connection_pool", SERVED, ASKED],
    "usage-worker": ["billing_usage_increment_total", "billing_jobs_total", CALLED, ASKED],
    "billing-worker": ["billing_invoices_generated_total", "billing_jobs_total", CALLED, ASKED],
    "payments-worker": ["billing_payment_success_total", "billing_jobs_total", CALLED, ASKED],
    "alerts-worker": ["billing_notifications_total", "billing_jobs_total", ASKED],
    "gateway": ["billing_api_requests_total", "http_server_request_duration_seconds_count", CALLED],
}

# A table without which a service cannot answer a call, and the call. None of its loops asks that table.
BROKEN = {
    "usage": ("reports", "/v1/customers/{customer}/usageReport?report_id=rep_0"),
    "billing": ("plan_versions", "/v1/plans"),
    "payments": ("payment_methods", "/v1/customers/{customer}/paymentMethods"),
    "alerts": ("channels", "/v1/channels"),
}


@dataclass(frozen=True)
class Journey:
    """A customer whose second event reached its limit of two, sent by REST from a trace of the caller's.

    Attributes:
        customer: its id.
        trace_id: the caller's.
        parent_id: the caller's span.
        webhook: the headers of the webhook that told of it.
    """

    customer: str
    trace_id: str
    parent_id: str
    webhook: Mapping[str, str]


def traceparent() -> tuple[str, str, str]:
    """A new caller's trace id, span id and header."""
    trace_id, span_id = secrets.token_hex(16), secrets.token_hex(8)
    return trace_id, span_id, f"00-{trace_id}-{span_id}-01"


@pytest.fixture(scope="module")
def rest(up: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://{up.run['gateway']}", timeout=30) as client:
        yield client


@pytest.fixture(scope="module")
def journey(up: Running, rest: httpx.Client) -> Iterator[Journey]:
    with WebhookReceiver() as webhooks, up.channel("usage") as channel:
        url = f"http://{webhooks.address}/alerts"
        body = {"kind": "WEBHOOK", "display_name": "matrix", "url": url}
        assert rest.post("/v1/channels", json=body).status_code == httpx.codes.OK
        usage = Client.on(channel)
        usage.create_meter("journeys", event_type="journey.step")
        customer = usage.put_customer(limits={"journeys": "2"}, thresholds=[100])
        trace_id, parent_id, header = traceparent()
        now = datetime.now(UTC).isoformat()
        steps = [
            {"id": f"step-{step}", "source": "matrix", "type": "journey.step", "customer_id": customer, "time": now}
            for step in range(2)
        ]
        answer = rest.post("/v1/events:ingest", json={"events": steps}, headers={"traceparent": header})
        assert [result["outcome"] for result in answer.json()["results"]] == ["ACCEPTED", "ACCEPTED"]
        (webhook,) = eventually(lambda: webhooks.of(customer), seconds=30)
        yield Journey(customer, trace_id, parent_id, webhook)


@pytest.fixture(scope="module")
def demo(stack: RealStack, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The main job in a Meterscope of its own: usage, a bill run, payments, alerts. Returns the bill run's trace id."""
    folder = tmp_path_factory.mktemp("demo")
    # Others on this stack have billed as well.
    before = set(stack.find_traces("billing", START))
    command = [str(Path(sys.executable).with_name("meterscope")), "demo", "--limit-lines", "100"]
    subprocess.run(
        [*command, "--data-dir", str(folder / "data"), "--port", str(free_ports(20))],
        env={**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": stack.endpoint},
        stdout=subprocess.DEVNULL,
        check=True,
        timeout=120,
    )
    (trace_id,) = eventually(lambda: set(stack.find_traces("billing", START)) - before, seconds=60)
    return trace_id


def tags(span: Mapping[str, Any]) -> dict[str, Any]:
    return {tag["key"]: tag["value"] for tag in span["tags"]}


def step(span: Mapping[str, Any]) -> tuple[str, str, str]:
    return span["service"], span["operationName"], tags(span).get("span.kind", "internal")


def parent(span: Mapping[str, Any]) -> str:
    """The id of its parent, empty for a root."""
    return "".join(found["spanID"] for found in span["references"] if found["refType"] == "CHILD_OF")


def links(span: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(found["traceID"], found["spanID"]) for found in span["references"] if found["refType"] == "FOLLOWS_FROM"]


def test_one_trace_leads_from_the_rest_call_to_the_webhook(stack: RealStack, journey: Journey) -> None:
    version, trace_id, last, _ = journey.webhook["traceparent"].split("-")
    assert (version, trace_id) == ("00", journey.trace_id)
    # The customer's number stays inside.
    assert "baggage" not in journey.webhook

    def walked() -> list[dict[str, Any]]:
        spans = stack.trace(journey.trace_id)
        passed, at = [], last
        while at in spans:
            passed.append(spans[at])
            at = parent(spans[at])
        return passed[::-1] if at == journey.parent_id else []

    passed = eventually(walked, seconds=60)
    assert [step(span) for span in passed] == JOURNEY
    # Each begins after its parent and belongs to the customer from where it is known.
    starts = [span["startTime"] for span in passed]
    assert starts == sorted(starts)
    producers = [span for span in passed if step(span)[2] == "producer"]
    consumers = [span for span in passed if step(span)[2] == "consumer"]
    for producer, consumer, queue in zip(producers, consumers, ("usage", "alerts"), strict=True):
        sent, processed = tags(producer), tags(consumer)
        assert (sent["messaging.system"], sent["messaging.operation.type"]) == ("dramatiq", "send")
        assert (processed["messaging.system"], processed["messaging.operation.type"]) == ("dramatiq", "process")
        assert sent["messaging.destination.name"] == processed["messaging.destination.name"] == queue
        assert processed["messaging.message.id"].startswith("obx_")
        assert (processed["meterscope.job.attempt"], processed["meterscope.job.status"]) == (1, "success")
        assert links(consumer) == []
    ingest, delivery = tags(passed[2]), tags(passed[-1])
    assert (ingest["rpc.system.name"], ingest["rpc.response.status_code"]) == ("grpc", "OK")
    assert delivery["notification.result"] == "HTTP 204"


@pytest.mark.usefixtures("journey")
def test_the_command_draws_the_trace_that_jaeger_has(stack: RealStack, journey: Journey) -> None:
    command = [str(Path(sys.executable).with_name("meterscope")), "trace", journey.trace_id, "--all"]
    jaeger = {**os.environ, "JAEGER_URL": f"http://{stack.addresses['Jaeger']}", "COLUMNS": "300"}

    def drawn() -> list[str]:
        made = subprocess.run(command, env=jaeger, capture_output=True, text=True, check=False, timeout=60)
        lines = made.stdout.splitlines()
        return lines if any("alerts-worker POST" in line for line in lines) else []

    title, *lines = eventually(drawn, seconds=60)
    assert journey.trace_id in title
    assert f"{len(lines)} spans" in title
    # The journey's spans come in its order, each further in than the one before.
    at = [
        next(n for n, line in enumerate(lines) if f"{service} {short(name)}  " in line) for service, name, _ in JOURNEY
    ]
    assert at == sorted(at)
    depths = [len(lines[n]) - len(lines[n].lstrip("│├└─ \xa0")) for n in at]
    assert depths == sorted(set(depths))


def short(name: str) -> str:
    """The name as it is drawn: without the package."""
    service, _, method = name.rpartition("/")
    return f"{service.rpartition('.')[2]}/{method}" if name.count(".") > 1 else name


def test_a_bill_runs_trace_passes_through_all_processes(stack: RealStack, demo: str) -> None:
    def ways() -> dict[tuple[str, str, str, str], tuple[str, str]]:
        spans = stack.trace(demo)
        found = {}
        for span in spans.values():
            above = spans.get(parent(span))
            if above and above["service"] != span["service"]:
                way = (above["service"], above["operationName"], span["service"], span["operationName"])
                found[way] = (step(above)[2], step(span)[2])
        return found

    found = eventually(lambda: there if set(there := ways()) >= BILL_RUN else None, seconds=60)
    assert set(found.values()) <= WAYS


@pytest.mark.usefixtures("journey", "demo")
@pytest.mark.parametrize("process", METRICS)
def test_metrics_of_each_process_are_in_prometheus(stack: RealStack, process: str) -> None:
    for name in METRICS[process]:
        query = f'sum(max_over_time({name}{{job="meterscope/{process}"}}[10m])) > 0'
        eventually(lambda query=query: stack.samples(query), seconds=60)


@contextlib.contextmanager
def renamed(up: Running, service: str, table: str) -> Iterator[None]:
    """A table is not where its service looks for it."""
    port = up.port + OFFSETS["postgres"]
    with psycopg.connect(postgres_url(up.data_dir, port, service), autocommit=True) as connection:
        names = {"schema": sql.Identifier(service), "here": sql.Identifier(table), "away": sql.Identifier("away")}
        connection.execute(sql.SQL("ALTER TABLE {schema}.{here} RENAME TO {away}").format(**names))
        try:
            yield
        finally:
            connection.execute(sql.SQL("ALTER TABLE {schema}.{away} RENAME TO {here}").format(**names))


@pytest.fixture(scope="module")
def faults(up: Running, rest: httpx.Client, journey: Journey) -> dict[str, str]:
    """By service, the trace id of a call that it could not answer. Together, since the collector waits for each."""
    traces = {}
    for service, (table, path) in BROKEN.items():
        traces[service], _, header = traceparent()
        with renamed(up, service, table):
            answer = rest.get(path.format(customer=journey.customer), headers={"traceparent": header})
        assert (answer.status_code, answer.json()["trace_id"]) == (500, traces[service])
    return traces


@pytest.mark.parametrize("service", BROKEN)
def test_a_fault_is_in_jaeger_and_its_log_lines_in_loki(stack: RealStack, faults: dict[str, str], service: str) -> None:
    table, trace_id = BROKEN[service][0], faults[service]
    ((labels, line),) = eventually(
        lambda: stack.lines(f'{{service_name="{service}"}} | trace_id="{trace_id}"'), seconds=60
    )
    assert line == "call failed"
    assert labels["exception_type"] == "ProgrammingError"
    assert table in labels["exception_message"]
    ((labels, line),) = eventually(
        lambda: stack.lines(f'{{service_name="gateway"}} | trace_id="{trace_id}"'), seconds=60
    )
    assert line == "answered 500"

    def failed() -> set[str]:
        found = stack.trace(trace_id).values()
        return {span["service"] for span in found if tags(span).get("otel.status_code") == "ERROR"}

    # Two processes send their spans at two times.
    eventually(lambda: failed() == {"gateway", service}, seconds=60)
    assert labels["span_id"] in stack.trace(trace_id)


@pytest.mark.parametrize("process", ["billing-worker", "payments-worker", "alerts-worker"])
def test_log_lines_of_workers_are_in_loki_by_the_bill_runs_trace(stack: RealStack, demo: str, process: str) -> None:
    found = eventually(lambda: stack.lines(f'{{service_name="{process}"}} | trace_id="{demo}"'), seconds=60)
    labels, line = found[0]
    expected = {
        "billing-worker": "invoice finalized",
        "payments-worker": "payment attempted",
        "alerts-worker": "alert: ",
    }
    assert line.startswith(expected[process])
    spans = stack.trace(demo)
    assert spans[labels["span_id"]]["service"] == process


def test_a_job_that_waited_long_begins_a_trace_with_a_link_to_the_old_one(
    stack: RealStack, up: Running, rest: httpx.Client, journey: Journey
) -> None:
    trace_id, _, header = traceparent()
    worker = up.run["pids"]["usage-worker"]
    # Longer than what is answered at once: a job makes it.
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    span_of_time = {"start_time": (today - timedelta(days=100)).isoformat(), "end_time": today.isoformat()}
    database = postgres_url(up.data_dir, up.port + OFFSETS["postgres"], "usage")
    with psycopg.connect(database, autocommit=True) as connection:
        os.kill(worker, signal.SIGSTOP)
        try:
            answer = rest.get(
                f"/v1/customers/{journey.customer}/usageReport", params=span_of_time, headers={"traceparent": header}
            )
            assert answer.json()["state"] == "RUNNING"
            aged = "UPDATE usage.outbox SET created_at = created_at - interval '61 seconds'"
            waiting = connection.execute(
                f"{aged} WHERE context->>'traceparent' LIKE %s RETURNING id", [f"00-{trace_id}-%"]
            )
            ((job,),) = waiting.fetchall()
            # It fails the first time, so that the collector keeps its trace.
            with renamed(up, "usage", "reports"):
                os.kill(worker, signal.SIGCONT)
                failed = "SELECT last_error FROM usage.outbox WHERE id = %s AND last_error IS NOT NULL"
                eventually(lambda: connection.execute(failed, [job]).fetchone())
        finally:
            os.kill(worker, signal.SIGCONT)

    def lines(text: str) -> list[tuple[dict[str, str], str]]:
        return stack.lines(f'{{service_name="usage-worker"}} | request_id="{job}" |= "{text}"')

    ((failure, _),) = eventually(lambda: lines("job failed"), seconds=60)
    ((success, _),) = eventually(lambda: lines("made a usage report"), seconds=60)
    # Each attempt is a trace of its own.
    assert len({trace_id, failure["trace_id"], success["trace_id"]}) == 3

    def processed() -> list[dict[str, Any]]:
        wanted = ("usage-worker", "process make_usage_report", "consumer")
        return [span for span in stack.trace(failure["trace_id"]).values() if step(span) == wanted]

    (process,) = eventually(processed, seconds=60)
    assert parent(process) == ""
    ((linked_trace, _),) = links(process)
    assert linked_trace == trace_id


@pytest.mark.usefixtures("journey")
def test_what_the_sdk_sends_is_there_by_every_signal(stack: RealStack, up: Running) -> None:
    with up.channel("usage") as channel:
        # A new one: of each customer's meter and day, one trace is kept.
        customer = Client.on(channel).put_customer()
    program = [sys.executable, "-m", "tests.stack.sdk_program", stack.endpoint, up.run["usage"], customer]
    ended = subprocess.run(program, capture_output=True, text=True, timeout=60, check=True)
    order = ended.stdout.strip()
    (root,) = eventually(lambda: stack.trace(order), seconds=60).values()
    assert step(root) == ("shop", "order", "internal")

    def linked() -> dict[str, Any] | None:
        for trace_id in stack.find_traces("shop", INGEST):
            spans = stack.trace(trace_id)
            batch = next(span for span in spans.values() if step(span) == ("shop", INGEST, "client"))
            served = [span for span in spans.values() if parent(span) == batch["spanID"]]
            if links(batch) == [(order, root["spanID"])] and served:
                return served[0]
        return None

    # A batch is nobody's child: it links to each span in which one of its events was tracked.
    assert step(eventually(linked, seconds=60)) == ("usage", INGEST, "server")
    ((labels, line),) = eventually(lambda: stack.lines(f'{{service_name="shop"}} | trace_id="{order}"'), seconds=60)
    assert (line, labels["span_id"]) == ("ordered", root["spanID"])
    (sample,) = eventually(lambda: stack.samples('shop_orders_total{job="shop"}'), seconds=60)
    assert sample["value"][1] == "1"
