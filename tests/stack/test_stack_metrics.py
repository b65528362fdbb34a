"""Each declared metric: what it counts is done on a real Meterscope, and read back from the real Prometheus.

One scenario of one Meterscope, so that numbers are known; a second usage worker shows who reads state.
"""

import math
import os
import runpy
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import httpx
import psutil
import psycopg
import pytest
from eventually import eventually
from google.type import decimal_pb2

from meterscope.billing.v1 import catalog_service_pb2 as catalog_pb
from meterscope.usage.v1 import call_record_service_pb2 as calls_pb
from meterscope.usage.v1 import call_record_service_pb2_grpc as calls_rpc
from meterscope.usage.v1 import event_service_pb2 as events_pb
from meterscope.usage.v1 import limit_service_pb2 as limits_pb
from services.kit import settings as kit_settings
from services.kit.channel import open_channel
from services.kit.config import KitSettings
from services.kit.instruments import Counter, Declaration
from services.usage.settings import Settings
from tests.billing import billing_harness as billing
from tests.e2e.running import Running, start, stop
from tests.ports import free_ports
from tests.stack.conftest import RealStack
from tests.usage.usage_harness import Client, amend, cancel, event, timestamp

pytestmark = pytest.mark.stack

ROOT = Path(__file__).parents[2]
DECLARED: dict[str, Declaration] = runpy.run_path(str(ROOT / "scripts/instruments.py"))["declared"]()
TOKEN = "the-token-of-this-test"
SERVICES = ("usage", "billing", "payments", "alerts")
PROCESSES = {f"meterscope/{name}" for name in (*SERVICES, *(f"{name}-worker" for name in SERVICES), "gateway")}
# What Prometheus puts on every series of ours: who sent it.
RESOURCE = {
    "__name__",
    "job",
    "instance",
    "service_name",
    "service_namespace",
    "service_version",
    "deployment_environment_name",
    "host_name",
}
INGEST = "meterscope.usage.v1.EventService/IngestEvents"
HOLDER = "a-report-of-others"

# Read by the lease's holder alone: by one process of a kind, whatever is started beside it.
OF_THE_LEASE = {
    "billing_usage_percentage",
    "billing_tenant_using_defaults",
    "billing_redis_memory_bytes",
    "billing_redis_usage_keys_total",
    "billing_redis_connections_active",
    "billing_rollup_lag_seconds",
    "billing_rollup_oldest_snapshot_seconds",
    "billing_rollup_held_back_seconds",
    "billing_integrity_totals_drift",
    "billing_jobs_queued",
    "billing_jobs_stuck",
    "billing_jobs_dead",
    "billing_last_job_timestamp",
    "billing_job_interval_seconds",
    "billing_customers_total",
    "billing_active_subscriptions",
    "billing_tenants_per_plan",
    "billing_alerts_firing",
}

# Money's own: produced and read back where billing, payments and alerts get their rules and dashboards.
NOT_PRODUCED = {
    "billing_invoice_generation_duration_seconds": "no invoice is made here",
    "billing_revenue_total": "no invoice is made here, and its currency is not known before one is",
    "billing_integrity_ledger_imbalance": "by currency, and the ledger has no entry here",
    "billing_payments_collected_total": "nothing is paid here, and its currency is not known before it is",
    "billing_payment_processing_duration_seconds": "no provider is asked here",
}


@dataclass(frozen=True)
class Expected:
    """A series that must be there: its exact labels, and between which bounds its value is (a histogram's: its count)."""

    name: str
    labels: Mapping[str, str]
    low: float
    high: float


@dataclass(frozen=True)
class Sample:
    """A series in Prometheus."""

    labels: dict[str, str]
    job: str
    instance: str
    value: float


@dataclass(frozen=True)
class Scenario:
    """What was done, for reading back."""

    stack: RealStack
    instances: frozenset[str]
    expected: list[Expected]

    def samples(self, name: str) -> list[Sample]:
        """The series of a declared metric that this scenario's processes sent; a histogram's counts."""
        declared = DECLARED[name]
        series = f"{name}_count" if declared.kind == "histogram" else name
        return [
            Sample(
                {label: value for label, value in found["metric"].items() if label not in RESOURCE},
                found["metric"]["job"],
                found["metric"]["instance"],
                float(found["value"][1]),
            )
            for found in self.stack.samples(f'{{__name__="{series}"}}')
            if found["metric"].get("instance") in self.instances
        ]

    def missing(self, expected: Expected) -> str:
        """Say how a series differs from what is expected; empty where it does not."""
        found = [sample for sample in self.samples(expected.name) if sample.labels == expected.labels]
        # What several processes count adds up; of a state there is one.
        total = sum(sample.value for sample in found)
        if found and expected.low <= total <= expected.high:
            return ""
        there = [sample.labels for sample in self.samples(expected.name)]
        return f"{expected}: {total if found else 'not there'} among {there[:20]}"


def exactly(name: str, value: float, /, **labels: str) -> Expected:
    return Expected(name, labels, value, value)


def at_least(name: str, value: float, /, **labels: str) -> Expected:
    return Expected(name, labels, value, math.inf)


def of_customer(expected: Expected) -> Expected:
    """With the tenant beside the customer."""
    return replace(expected, labels={**expected.labels, "tenant_id": expected.labels["customer_id"]})


@pytest.fixture(scope="module")
def meterscope(stack: RealStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A Meterscope of this module's own: with a service token, and jobs that need not be waited for."""
    running = start(
        tmp_path_factory.mktemp("metrics") / "data",
        OTEL_EXPORTER_OTLP_ENDPOINT=stack.endpoint,
        METERSCOPE_SERVICE_TOKEN=TOKEN,
        METERSCOPE_USAGE_COST_SECONDS="3",
        METERSCOPE_USAGE_ANOMALY_SECONDS="3",
        METERSCOPE_USAGE_DRIFT_SECONDS="1",
    )
    yield running
    assert stop(running) == 0


@pytest.fixture(scope="module")
def second_worker(meterscope: Running) -> Iterator[int]:
    """Another usage worker beside the first; its process id."""
    environ = psutil.Process(meterscope.run["pids"]["usage-worker"]).environ()
    address = f"127.0.0.1:{free_ports()}"
    command = [sys.executable, "-m", "services.usage", "work"]
    process = subprocess.Popen(command, env={**environ, "METERSCOPE_USAGE_WORKER_ADDRESS": address}, cwd=ROOT)
    with grpc.insecure_channel(address) as channel:
        grpc.channel_ready_future(channel).result(60)
    yield process.pid
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0


@pytest.fixture(scope="module")
def usage_settings(meterscope: Running) -> Settings:
    """The settings that the usage worker was started with."""
    environ = psutil.Process(meterscope.run["pids"]["usage-worker"]).environ()
    return kit_settings.read(Settings, environ)


@pytest.fixture(scope="module")
def scenario(stack: RealStack, meterscope: Running, second_worker: int, usage_settings: Settings) -> Scenario:
    """Do everything, then hold the rollup up for as long as it takes to be seen."""
    ours = {job.removeprefix("meterscope/") for job in PROCESSES}
    pids = [pid for name, pid in meterscope.run["pids"].items() if name in ours]
    instances = frozenset(f"{socket.gethostname()}-{pid}" for pid in (*pids, second_worker))
    caller = replace(kit_settings.read(KitSettings, {}), service_token=TOKEN)
    began = time.time()
    with open_channel(meterscope.run["usage"], caller) as channel:
        client = Client.on(channel)
        expected = [
            *use_limits(client),
            *ingest_in_every_way(client, meterscope),
            *correct(client),
            *find_an_anomaly(client),
            *send_calls(channel, client.put_customer()),
            *ask_for_reports(meterscope, client),
            *subscribe(meterscope, client, caller),
            *be_refused(meterscope),
            *ask_by_http(meterscope),
            *run_jobs(began),
            *state_of_processes(usage_settings),
        ]
        made = Scenario(stack, instances, expected)
        made.expected.extend(hold_the_rollup_up(client, usage_settings, made))
    return made


def use_limits(client: Client) -> list[Expected]:
    """Three of four, refused for two more by a check and by a reservation; two of two, which tells alerts."""
    client.create_meter("messages", event_type="message.sent", unit="messages")
    client.create_meter("storage", event_type="storage.sampled", quantity="gigabytes", unit="GB")
    customer = client.put_customer(limits={"messages": "4"})
    full = client.put_customer(limits={"messages": "2"}, thresholds=[100])
    without = client.put_customer(has_plan=False)
    client.ingest(*[event(customer, type="message.sent") for _ in range(3)])
    client.ingest(event(customer, type="storage.sampled", quantities={"gigabytes": "1.5"}))
    client.ingest(event(full, type="message.sent"), event(full, type="message.sent"))
    client.until_used(customer, "messages", "3", answered_from=limits_pb.ANSWERED_FROM_LIVE)
    assert not client.check(customer, "messages", "2").allowed
    with pytest.raises(grpc.RpcError):
        client.reserve(customer, "messages", "2")
    return [
        of_customer(exactly("billing_usage_increment_total", 3, customer_id=customer, metric_type="messages")),
        of_customer(exactly("billing_usage_increment_total", 1.5, customer_id=customer, metric_type="storage")),
        of_customer(exactly("billing_usage_increment_total", 2, customer_id=full, metric_type="messages")),
        of_customer(exactly("billing_limit_exceeded_total", 2, customer_id=customer, limit_type="messages")),
        # Three of four; two of two.
        of_customer(exactly("billing_usage_percentage", 75, customer_id=customer, limit_type="messages")),
        of_customer(exactly("billing_usage_percentage", 100, customer_id=full, limit_type="messages")),
        of_customer(exactly("billing_tenant_using_defaults", 0, customer_id=customer)),
        of_customer(exactly("billing_tenant_using_defaults", 1, customer_id=without)),
        at_least("billing_limit_checks_total", 2, answered_from="live"),
        at_least("billing_limit_checks_total", 0, answered_from="database"),
        at_least("billing_jobs_total", 1, queue="usage", job_name="raise_signal", status="success"),
        exactly("billing_jobs_total", 0, queue="usage", job_name="raise_signal", status="dead"),
        at_least(
            "billing_job_processing_duration_seconds",
            1,
            queue="usage",
            job_name="raise_signal",
            status="success",
        ),
        at_least("billing_alerts_firing", 1, severity="CRITICAL", type="usage_threshold"),
        at_least("billing_notifications_total", 0, channel="webhook", status="dead"),
        at_least("billing_notifications_total", 1, channel="log", status="delivered"),
        at_least("billing_notification_delivery_seconds", 1, channel="log", status="delivered"),
    ]


def ingest_in_every_way(client: Client, running: Running) -> list[Expected]:
    """Every outcome by gRPC, and one event by each of the other transports."""
    customer = client.put_customer()
    sent = event(customer, type="message.sent")
    changed = events_pb.Event()
    changed.CopyFrom(sent)
    changed.attributes["changed"] = "yes"
    unknown, poisoned = event("nobody known", type="message.sent"), event(customer, type="message.sent", id="a\0b")
    assert client.outcomes(sent, sent, changed, unknown, poisoned) == [
        "ACCEPTED",
        "DUPLICATE",
        "CONFLICT",
        "QUARANTINED",
        "REJECTED",
    ]
    streamed = events_pb.StreamEventsRequest(events=[event(customer, type="message.sent")])
    token = (("authorization", f"Bearer {TOKEN}"),)
    (answer,) = client.events.StreamEvents(iter([streamed]), timeout=30, metadata=token)
    assert answer.accepted == 1
    gateway = f"http://{running.run['gateway']}"
    now = datetime.now(UTC).isoformat()
    given = {"id": "by-rest", "source": "/test", "type": "message.sent", "customerId": customer, "time": now}
    httpx.post(f"{gateway}/v1/events:ingest", json={"events": [given]}, timeout=30).raise_for_status()
    cloud = {"specversion": "1.0", "id": "by-cloud", "source": "/test", "type": "message.sent", "subject": customer}
    headers = {"content-type": "application/cloudevents+json"}
    httpx.post(f"{gateway}/v1/events", json=cloud, headers=headers, timeout=30).raise_for_status()
    outcomes = ("accepted", "duplicate", "conflict", "quarantined", "rejected")
    return [
        # One of each by gRPC, where others of the scenario are accepted too.
        *(at_least("billing_events_ingested_total", 1, outcome=each, transport="grpc") for each in outcomes),
        exactly("billing_events_ingested_total", 1, outcome="accepted", transport="stream"),
        exactly("billing_events_ingested_total", 1, outcome="accepted", transport="rest"),
        exactly("billing_events_ingested_total", 1, outcome="accepted", transport="cloudevents"),
        exactly("billing_events_ingested_total", 0, outcome="rejected", transport="cloudevents"),
        at_least("billing_event_ingestion_duration_seconds", 1, transport="grpc"),
        exactly("billing_event_ingestion_duration_seconds", 1, transport="rest"),
        at_least("billing_event_lag_seconds", 1),
        at_least("billing_rollup_duration_seconds", 1),
        # One by gRPC, one streamed, one by REST, one as a CloudEvent.
        of_customer(exactly("billing_usage_increment_total", 4, customer_id=customer, metric_type="messages")),
        at_least(
            "rpc_server_call_duration_seconds",
            1,
            rpc_system_name="grpc",
            rpc_method=INGEST,
            rpc_response_status_code="OK",
        ),
        at_least(
            "rpc_client_call_duration_seconds",
            1,
            rpc_system_name="grpc",
            rpc_method=INGEST,
            rpc_response_status_code="OK",
        ),
    ]


def correct(client: Client) -> list[Expected]:
    """One event amended, one cancelled, both of an open period."""
    customer = client.put_customer()
    wrong, gone = event(customer, type="message.sent"), event(customer, type="message.sent")
    client.ingest(wrong, gone)
    amend(client, wrong, event(customer, type="message.sent"), reason="a test")
    cancel(client, gone, reason="a test")
    return [
        exactly("billing_event_corrections_total", 1, kind="amend", period="open"),
        exactly("billing_event_corrections_total", 1, kind="cancel", period="open"),
        exactly("billing_event_corrections_total", 0, kind="amend", period="closed"),
    ]


def find_an_anomaly(client: Client) -> list[Expected]:
    """Six weeks with two messages a day, and twenty today."""
    customer = client.put_customer()
    now = datetime.now(UTC)
    usual = [now - timedelta(days=day, hours=12) for day in range(1, 43) for _ in range(2)]
    client.ingest(*[event(customer, type="message.sent", time=instant) for instant in usual])
    client.ingest(*[event(customer, type="message.sent", time=now - timedelta(minutes=30)) for _ in range(20)])
    return [
        exactly("billing_usage_anomalies_total", 1, kind="spike"),
        exactly("billing_usage_anomalies_total", 0, kind="drop"),
        at_least("billing_usage_windows_judged_total", 1),
    ]


def send_calls(channel: grpc.Channel, customer: str) -> list[Expected]:
    """A call to India, and one whose number is none."""
    calls = [
        calls_pb.CallRecord(
            id=f"call-{callee}",
            customer_id=customer,
            caller="+442079460018",
            callee=callee,
            call_type=calls_pb.CALL_TYPE_OUTBOUND,
            start_time=timestamp(datetime.now(UTC)),
            duration_seconds=decimal_pb2.Decimal(value="65"),
        )
        for callee in ("+919876543210", "no number")
    ]
    stub = calls_rpc.CallRecordServiceStub(channel)
    answer = stub.IngestCallRecords(calls_pb.IngestCallRecordsRequest(call_records=calls), timeout=30)
    assert (answer.rejected, answer.accepted + answer.quarantined) == (1, 1)
    return [
        exactly("billing_cdr_processed_total", 1, status="success", call_type="outbound", destination="IN"),
        exactly("billing_cdr_processed_total", 1, status="failed", call_type="unknown", destination="unknown"),
        exactly("billing_cdr_processing_duration_seconds", 1, status="success"),
    ]


def ask_for_reports(running: Running, client: Client) -> list[Expected]:
    """A report that is made at once, and one over so long that a job makes it."""
    address = f"http://{running.run['gateway']}/v1/customers/{client.put_customer()}/usageReport"
    httpx.get(address, timeout=30).raise_for_status()
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    long = {"startTime": (today - timedelta(days=120)).isoformat(), "endTime": today.isoformat()}
    httpx.get(address, params=long, timeout=30).raise_for_status()
    return [
        exactly("billing_usage_report_duration_seconds", 1, made_by="call"),
        exactly("billing_usage_report_duration_seconds", 1, made_by="job"),
        at_least(
            "billing_api_requests_total",
            2,
            endpoint="/v1/customers/{customer_id}/usageReport",
            status_code="200",
        ),
    ]


def subscribe(running: Running, client: Client, caller: KitSettings) -> list[Expected]:
    """A customer of billing's on a plan, whose usage is priced; a plan that nobody is on."""
    changes = {"display_name": "Messages", "limits": [], "components": [billing.INR_PLAN["components"][0]]}
    with open_channel(running.run["billing"], caller) as channel:
        books = billing.Client(channel)
        plan: catalog_pb.Plan = books.plan(changes, plan_id="messages")
        books.plan(changes, plan_id="unused")
        customer = books.customer()
        books.subscribe(customer, plan, datetime.now(UTC).strftime("%Y-%m-01T00:00"))

    def known() -> bool:
        return client.outcomes(event(customer.id, type="message.sent")) == ["ACCEPTED"]

    eventually(known)
    return [
        exactly("billing_tenants_per_plan", 1, plan_id="messages", plan_name="Messages"),
        exactly("billing_tenants_per_plan", 0, plan_id="unused", plan_name="Messages"),
        exactly("billing_active_subscriptions", 1, plan="messages"),
        exactly("billing_customers_total", 1, status="active"),
        exactly("billing_customers_total", 0, status="closed"),
        exactly("billing_customers_created_total", 1),
        exactly("billing_invoices_generated_total", 0, type="subscription", status="failed"),
        exactly("billing_payment_success_total", 0, gateway="sandbox"),
        exactly("billing_payment_failure_total", 0, gateway="sandbox", reason="card_expired"),
        at_least("billing_usage_priced_total", 1),
        at_least("billing_usage_pricing_failures_total", 0),
    ]


def be_refused(running: Running) -> list[Expected]:
    """Two calls without the token."""
    with running.channel("usage") as channel:
        client = Client.on(channel)
        for _ in range(2):
            with pytest.raises(grpc.RpcError) as caught:
                client.ingest(event("cus_x"))
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    return [
        exactly("billing_auth_failures_total", 2, route=INGEST),
        exactly("billing_auth_failures_total", 0, route="meterscope.billing.v1.InvoiceService/GetInvoice"),
    ]


def ask_by_http(running: Running) -> list[Expected]:
    """Two lists of meters, and a page that there is none of."""
    gateway = f"http://{running.run['gateway']}"
    for path, status in (("/v1/meters", 200), ("/v1/meters", 200), ("/nothing", 404)):
        assert httpx.get(gateway + path, timeout=30).status_code == status
    return [
        exactly("billing_api_requests_total", 2, endpoint="/v1/meters", status_code="200"),
        exactly("billing_http_requests_total", 2, method="GET", route="/v1/meters", status_code="200"),
        exactly("billing_http_requests_total", 1, method="GET", route="unmatched", status_code="404"),
        exactly("billing_http_request_duration_seconds", 2, method="GET", route="/v1/meters", status_code="200"),
        exactly(
            "http_server_request_duration_seconds",
            2,
            http_request_method="GET",
            http_route="/v1/meters",
            http_response_status_code="200",
            url_scheme="http",
        ),
        # No route, no label.
        exactly(
            "http_server_request_duration_seconds",
            1,
            http_request_method="GET",
            http_response_status_code="404",
            url_scheme="http",
        ),
    ]


def run_jobs(began: float) -> list[Expected]:
    """Periodic jobs ran at the start, and nothing is stuck or dead."""
    names = {
        "replay_quarantined_events": 60,
        "usage_upkeep": 3_600,
        "usage_retention": 3_600,
        "price_usage": 3,
        "find_usage_anomalies": 3,
    }
    return [
        *(at_least("billing_last_job_timestamp", began - 60, job_name=name) for name in names),
        *(exactly("billing_job_interval_seconds", every, job_name=name) for name, every in names.items()),
        *(exactly(f"billing_jobs_{state}", 0, queue=name) for state in ("stuck", "dead") for name in SERVICES),
        *(at_least("billing_jobs_queued", 0, queue=name) for name in SERVICES),
    ]


def state_of_processes(settings: Settings) -> list[Expected]:
    """What is measured all the time."""
    namespace = f"{psycopg.conninfo.conninfo_to_dict(settings.database_url)['dbname']}|{settings.database_schema}"
    return [
        # A worker for each service, and a second one for usage.
        *(Expected("billing_component_up", {"component": name}, 5, 5) for name in ("database", "redis")),
        *(exactly("billing_component_up", 1, component=name) for name in SERVICES),
        *(
            at_least("billing_db_connection_pool", 0, service=name, status=status)
            for name in SERVICES
            for status in ("idle", "active", "waiting")
        ),
        *(at_least("billing_db_connection_pool_utilization", 0, service=name) for name in SERVICES),
        at_least(
            "db_client_operation_duration_seconds",
            1,
            db_system_name="postgresql",
            db_namespace=namespace,
            db_operation_name="SELECT",
        ),
        *(
            at_least("billing_redis_operation_duration_seconds", 1, operation=operation)
            for operation in ("hget", "hset", "del", "info", "scan")
        ),
        at_least("billing_redis_memory_bytes", 100_000),
        at_least("billing_redis_usage_keys_total", 2),
        at_least("billing_redis_connections_active", 1),
        exactly("billing_integrity_totals_drift", 0),
        at_least("billing_rollup_lag_seconds", 0),
        at_least("billing_rollup_oldest_snapshot_seconds", 0),
        at_least("process_cpu_time_seconds_total", 1, cpu_mode="user"),
        at_least("process_cpu_utilization_ratio", 0),
        at_least("process_memory_usage_bytes", 50_000_000),
        at_least("process_memory_utilization_ratio", 0.0001),
        at_least("process_thread_count", 9),
        at_least("process_unix_file_descriptor_count", 9),
        at_least("process_uptime_seconds", 1),
        at_least("cpython_gc_collections_total", 0, cpython_gc_generation="2"),
        at_least("system_cpu_utilization_ratio", 0, state="idle"),
        at_least("system_memory_utilization_ratio", 0.001, state="used"),
        at_least("system_filesystem_utilization_ratio", 0.0001, **disk(settings)),
        at_least("billing_disk_free_bytes", 1, **disk(settings)),
    ]


def disk(settings: Settings) -> dict[str, str]:
    """The labels of the disk that the data folder is on."""
    folder = settings.kit.data_dir
    assert folder is not None
    mount = next(path for path in (folder, *folder.parents) if os.path.ismount(path))
    (device,) = {part.device for part in psutil.disk_partitions(all=True) if part.mountpoint == str(mount)}
    return {"device": device, "mountpoint": str(mount)}


def hold_the_rollup_up(client: Client, settings: Settings, scenario: Scenario) -> list[Expected]:
    """Let no turn come through that holds a certain customer's usage, and another application hold the horizon back."""
    customer = client.put_customer()
    failed = of_customer(
        at_least(
            "billing_usage_increment_errors_total", 1, customer_id=customer, metric_type="messages", error_type="data"
        )
    )
    held = at_least("billing_rollup_held_back_seconds", 7, database=database(settings), application=HOLDER)
    look = f"-c search_path={settings.database_schema}"
    with psycopg.connect(settings.database_url, autocommit=True, options=look) as connection:
        row = connection.execute("SELECT number FROM customers WHERE id = %s", [customer]).fetchone()
        assert row is not None
        refuse = f"ALTER TABLE bucket_totals ADD CONSTRAINT refused CHECK (customer <> {row[0]}) NOT VALID"
        connection.execute(refuse)  # type: ignore[arg-type] # a number of our own
        client.ingest(event(customer, type="message.sent"))
        eventually(lambda: not scenario.missing(failed), seconds=60)
        connection.execute("ALTER TABLE bucket_totals DROP CONSTRAINT refused")
        with psycopg.connect(settings.database_url, application_name=HOLDER) as holder:
            holder.execute("SELECT pg_current_xact_id()")
            eventually(lambda: not scenario.missing(held), seconds=60)
    return [
        failed,
        exactly(
            "billing_usage_increment_errors_total",
            0,
            **dict.fromkeys(("customer_id", "tenant_id", "metric_type"), "all"),
            error_type="data",
        ),
        # Once it may, it is added: once.
        of_customer(exactly("billing_usage_increment_total", 1, customer_id=customer, metric_type="messages")),
    ]


def database(settings: Settings) -> str:
    return str(psycopg.conninfo.conninfo_to_dict(settings.database_url)["dbname"])


def test_what_was_done_is_in_prometheus_under_its_exact_name_and_labels(scenario: Scenario) -> None:
    waiting = list(scenario.expected)

    def all_there() -> bool:
        waiting[:] = [each for each in waiting if scenario.missing(each)]
        return not waiting

    # Metrics leave every 15 s, state is read every 30 s.
    deadline = time.monotonic() + 120
    while not all_there() and time.monotonic() < deadline:
        time.sleep(1)
    assert [scenario.missing(each) for each in waiting] == []


def test_no_declared_metric_is_left_out(scenario: Scenario) -> None:
    produced = {each.name for each in scenario.expected} | {"billing_rollup_held_back_seconds"}
    assert set(DECLARED) - produced == set(NOT_PRODUCED)


@pytest.mark.parametrize("name", sorted(set(DECLARED) - set(NOT_PRODUCED)))
def test_every_series_has_the_declared_labels_and_no_others(scenario: Scenario, name: str) -> None:
    declared = DECLARED[name]
    may_lack = {label.prometheus_name for label in declared.labels if label.optional}
    closed = {label.prometheus_name: set(label.values) for label in declared.labels if label.values}
    for sample in scenario.samples(name):
        assert set(declared.prometheus_labels) - may_lack <= set(sample.labels) <= set(declared.prometheus_labels)
        assert sample.labels.get("tenant_id") == sample.labels.get("customer_id")
        for label, values in closed.items():
            assert sample.labels[label] in values


@pytest.mark.parametrize(
    "name", sorted(name for name, each in DECLARED.items() if isinstance(each, Counter) and each.zeros({}))
)
def test_a_counter_of_closed_labels_has_all_its_series_from_the_start(scenario: Scenario, name: str) -> None:
    declared = DECLARED[name]
    assert isinstance(declared, Counter)
    wanted = {
        frozenset((label.replace(".", "_"), value) for label, value in zeros.items()) for zeros in declared.zeros({})
    }
    eventually(
        lambda: wanted <= {frozenset(sample.labels.items()) for sample in scenario.samples(name)},
        seconds=60,
    )


@pytest.mark.parametrize("name", sorted(OF_THE_LEASE))
def test_state_is_read_by_one_process_of_a_kind(scenario: Scenario, name: str) -> None:
    def readers() -> dict[str, set[str]]:
        """Who reports now: a lease may have changed hands while the rollup failed."""
        found: dict[str, set[str]] = {}
        for sample in scenario.stack.samples(f'present_over_time({{__name__="{name}"}}[20s])'):
            if (instance := sample["metric"]["instance"]) in scenario.instances:
                found.setdefault(sample["metric"]["job"], set()).add(instance)
        return found

    if name == "billing_rollup_held_back_seconds":
        eventually(lambda: readers() == {}, seconds=60)  # nothing does any more
        return
    eventually(lambda: (found := readers()) and all(len(each) == 1 for each in found.values()), seconds=60)


def test_every_process_measures_itself(scenario: Scenario) -> None:
    own = [name for name in DECLARED if name.startswith(("process_", "system_", "cpython_")) or "_disk_" in name]
    assert len(own) == 12
    for name in own:
        samples = scenario.samples(name)
        assert {sample.job for sample in samples} == PROCESSES, name
        assert {sample.instance for sample in samples} == scenario.instances, name


def test_an_exemplar_leads_to_a_trace_that_is_kept(stack: RealStack, scenario: Scenario) -> None:
    address = f"http://{stack.addresses['Prometheus']}/api/v1/query_exemplars"

    def exemplars() -> list[str]:
        """The traces that durations of ingest calls point to."""
        query: dict[str, Any] = {
            "query": f'rpc_server_call_duration_seconds_bucket{{rpc_method="{INGEST}"}}',
            "start": time.time() - 600,
            "end": time.time(),
        }
        return [
            exemplar["labels"]["trace_id"]
            for series in httpx.get(address, params=query, timeout=30).raise_for_status().json()["data"]
            if series["seriesLabels"]["instance"] in scenario.instances
            for exemplar in series["exemplars"]
        ]

    for trace_id in eventually(exemplars, seconds=60):
        spans = eventually(lambda trace_id=trace_id: stack.trace(trace_id), seconds=60)
        tags = [{tag["key"]: tag["value"] for tag in span["tags"]} for span in spans.values()]
        assert any(each.get("meterscope.keep") is True for each in tags)
