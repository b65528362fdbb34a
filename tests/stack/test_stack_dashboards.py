"""Every query of every dashboard, asked of the real Prometheus and Loki after a scenario that moves what they show."""

import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import yaml
from eventually import eventually
from google.protobuf import json_format
from google.type import decimal_pb2

from meterscope.billing.v1 import catalog_service_pb2 as catalog_pb
from meterscope.usage.v1 import call_record_service_pb2 as calls_pb
from meterscope.usage.v1 import call_record_service_pb2_grpc as calls_grpc
from tests.billing.billing_harness import Client as Billing
from tests.e2e.running import Running
from tests.stack.conftest import RealStack
from tests.usage.usage_harness import Client, event, timestamp

pytestmark = [pytest.mark.stack, pytest.mark.undisturbed]

ROOT = Path(__file__).parents[2]
DASHBOARDS = [
    json.loads(path.read_text()) for path in sorted((ROOT / "otel-collector/grafana/dashboards").glob("*.json"))
]
SOURCES = ROOT / "otel-collector/grafana/provisioning/datasources/meterscope.yaml"
SLO_MONTH = "meterscope:slo_burn:rate30d"

# Panels that show nothing after the scenario, each for its reason. One that shows something is no more to be here.
EMPTY = {
    "meterscope-redis: Log lines about Redis": "Redis was there all the time",
    "meterscope-performance: Who holds the rollup back": "nobody else wrote in its database",
}

# What some panels show then, by the first label: from, to. A gauge is exact. `increase` reckons on to the end of the range,
# at most by as much again: 6 pages are shown as 6 to 12. A counter that Prometheus had not begun with a 0 would show 0.
SHOWN = {
    "meterscope-overview: Top 10 customers by $metric_type": {"customer": (6, 12)},
    "meterscope-overview: Top 10 customers by used share of storage": {"customer": (80, 80)},
    "meterscope-overview: Customers per plan": {"dashboards": (2, 2)},
    "meterscope-overview: Refusals per hour": {"pages": (1, 2)},
    "meterscope-usage-customer: Used share of limits": {"pages": (60, 60), "storage_bytes": (80, 80)},
    "meterscope-usage-customer: Used in this range": {
        "pages": (6, 12),
        "storage_bytes": (800, 1600),
        "phone_calls": (1, 2),
    },
    "meterscope-usage-customer: On the default limits": {"": (0, 0)},
    "meterscope-cdr: In this range": {"": (1, 2)},
    "meterscope-jobs: Dead": {"": (0, 0)},
    # Nothing failed. (Of latency nothing is known: one slow answer on a busy machine breaks the promise of so few.)
    "meterscope-slo: Left of 30 days' budget": {"ingest-durability": (1, 1), "gateway-availability": (1, 1)},
}

PLAN = {
    "id": "dashboards",
    "display_name": "Dashboards",
    "currency": "INR",
    "interval": "BILLING_INTERVAL_MONTH",
    "components": [
        {
            "id": "base",
            "display_name": "Base fee",
            "flat_fee": {"amount": {"currency_code": "INR", "units": 499}},
        }
    ],
    "limits": [
        {"meter": "pages", "limit": {"value": "10"}, "kind": "PLAN_LIMIT_KIND_HARD", "thresholds": [50]},
        {"meter": "storage_bytes", "limit": {"value": "1000"}, "kind": "PLAN_LIMIT_KIND_HARD"},
    ],
}


@dataclass(frozen=True)
class Query:
    """A panel's query with its variables filled in."""

    panel: str
    text: str
    source: str
    instant: bool


@dataclass(frozen=True)
class Scenario:
    """What happened, and to whom.

    Attributes:
        customer: has a plan with limits of 10 pages and 1,000 bytes; used 6 and 800.
        began: before anything of it happened, unix seconds.
    """

    customer: str
    began: float

    def ask(self, stack: RealStack, query: Query) -> int:
        """How many numbers or lines the query finds; fails where it is refused."""
        base = f"http://{stack.addresses[query.source]}"
        end = time.time()
        if query.source == "Loki":
            parameters = {"query": query.text, "start": str(self.began), "end": str(end), "limit": "200"}
            return sum(len(stream["values"]) for stream in answered(f"{base}/loki/api/v1/query_range", parameters))
        if query.instant:
            found = answered(f"{base}/api/v1/query", {"query": query.text, "time": str(end)})
            return sum(is_number(series["value"]) for series in found)
        parameters = {"query": query.text, "start": str(self.began), "end": str(end), "step": "15"}
        found = answered(f"{base}/api/v1/query_range", parameters)
        return sum(is_number(sample) for series in found for sample in series["values"])


def answered(address: str, parameters: dict[str, str]) -> list[dict[str, Any]]:
    answer = httpx.get(address, params=parameters, timeout=30)
    assert answer.status_code == httpx.codes.OK, f"{parameters['query']}: {answer.text}"
    found: list[dict[str, Any]] = answer.json()["data"]["result"]
    return found


def is_number(sample: list[Any]) -> bool:
    return not math.isnan(float(sample[1]))


@pytest.fixture(scope="module")
def scenario(up: Running) -> Scenario:
    """A customer with a plan uses, is warned, is refused, calls; somebody asks for what is not there."""
    began = time.time()
    with up.channel("usage") as to_usage, up.channel("billing") as to_billing:
        usage, billing = Client.on(to_usage), Billing(to_billing)
        usage.create_meter("pages", event_type="page.rendered")
        usage.create_meter("storage_bytes", event_type="file.stored", quantity="bytes")
        usage.create_meter("phone_calls", event_type="call.record")
        customer, plan = subscribed(usage, billing)
        billed(billing, plan)
        page = event(customer, type="page.rendered")
        stored = event(customer, type="file.stored", quantities={"bytes": "800"})
        usage.ingest(*(event(customer, type="page.rendered") for _ in range(5)), page, stored)
        # The same once more, one of a customer that nobody knows, and one that cannot be.
        assert usage.outcomes(page) == ["DUPLICATE"]
        assert usage.outcomes(event("nobody", type="page.rendered")) == ["QUARANTINED"]
        assert usage.outcomes(event(customer, type="")) == ["REJECTED"]
        # 6 of 10 are used: 5 more are too many.
        eventually(lambda: usage.check(customer, "pages").used.value == "6")
        assert not usage.check(customer, "pages", "5").allowed
        called(calls_grpc.CallRecordServiceStub(to_usage), customer)
    with httpx.Client(base_url=f"http://{up.run['gateway']}", timeout=30) as rest:
        for _ in range(3):
            assert rest.get("/v1/meters").status_code == httpx.codes.OK
        assert rest.get("/v1/meters/none").status_code == httpx.codes.NOT_FOUND
    return Scenario(customer, began)


def subscribed(usage: Client, billing: Billing) -> tuple[str, catalog_pb.Plan]:
    """A new customer whose plan usage knows of, and the plan."""
    plan = json_format.ParseDict(PLAN, catalog_pb.Plan())
    plan = billing.catalog.CreatePlan(catalog_pb.CreatePlanRequest(plan=plan))
    customer = billing.customer(time_zone="UTC")
    billing.subscribe(customer, plan, first_of_month(0))

    def known() -> bool:
        try:
            return usage.check(customer.id, "pages").limit.value == "10"
        except grpc.RpcError as error:
            assert error.code() is grpc.StatusCode.NOT_FOUND  # noqa: PT017 - what else it may be is no answer either
            return False

    eventually(known, seconds=30)
    return str(customer.id), plan


def billed(billing: Billing, plan: catalog_pb.Plan) -> None:
    """A customer that pays for last month: the ledger moves."""
    customer = billing.customer(time_zone="UTC")
    billing.subscribe(customer, plan, first_of_month(1))
    billing.start_bill_run(first_of_month(0))
    eventually(lambda: billing.invoices_of(customer), seconds=60)


def first_of_month(ago: int) -> str:
    """Midnight (UTC) at the beginning of this month, or of the month so many before it."""
    now = datetime.now(UTC)
    months = now.year * 12 + now.month - 1 - ago
    return datetime(months // 12, months % 12 + 1, 1).isoformat()  # noqa: DTZ001 - the harness adds UTC


def called(calls: calls_grpc.CallRecordServiceStub, customer: str) -> None:
    """One call that counts and one that cannot be."""
    start = datetime.now(UTC) - timedelta(minutes=5)
    good = calls_pb.CallRecord(
        id="1",
        customer_id=customer,
        caller="+442079460018",
        callee="+919876543210",
        start_time=timestamp(start),
        duration_seconds=decimal_pb2.Decimal(value="60"),
    )
    bad = calls_pb.CallRecord(id="2", customer_id=customer, caller="", callee="+919876543210")
    answer = calls.IngestCallRecords(calls_pb.IngestCallRecordsRequest(call_records=[good, bad]), timeout=30)
    assert (answer.accepted, answer.rejected) == (1, 1)


def queries(customer: str) -> Iterator[Query]:
    for dashboard in DASHBOARDS:
        for panel in dashboard["panels"]:
            for target in panel.get("targets", ()):
                source = {"prometheus": "Prometheus", "loki": "Loki"}[target["datasource"]["type"]]
                name = f"{dashboard['uid']}: {panel['title']}"
                yield Query(name, filled(target["expr"], customer), source, target.get("instant", False))


def filled(text: str, customer: str) -> str:
    """The query as Grafana sends it: four exports for a rate, half an hour on the dashboard, everything chosen."""
    # Recorded every five minutes; asked here for what the rule works out, of all environments.
    text = text.replace(f'{SLO_MONTH}{{deployment_environment_name=~"$environment"}}', rule(SLO_MONTH))
    values = {
        "$__rate_interval": "1m",
        "$__range": "30m",
        "$environment": ".*",
        "$service": ".*",
        "$trace_id": ".*",
        "$metric_type": "pages",
        "$customer_id": customer,
    }
    for name, value in values.items():
        text = text.replace(name, value)
    assert "$" not in text
    return text


def named(panel: str, customer: str) -> Query:
    """A panel's first query."""
    return next(query for query in queries(customer) if query.panel == panel)


def rule(name: str) -> str:
    groups = yaml.safe_load((ROOT / "otel-collector/prometheus/rules/slo.yml").read_text())["groups"]
    (found,) = [rule["expr"] for group in groups for rule in group["rules"] if rule.get("record") == name]
    return f"({found})"


def test_every_panel_shows_what_happened(stack: RealStack, scenario: Scenario) -> None:
    waiting = list(queries(scenario.customer))
    expected = [query for query in waiting if query.panel not in EMPTY]
    assert {query.panel for query in waiting} >= set(EMPTY)

    def arrived() -> bool:
        expected[:] = [query for query in expected if not scenario.ask(stack, query)]
        return not expected

    try:
        eventually(arrived, seconds=120)
    finally:
        for query in expected:
            print(f"empty: {query.panel}: {query.text}")
    empty = {query.panel for query in waiting if query.panel in EMPTY and not scenario.ask(stack, query)}
    assert empty == set(EMPTY), "these show something: they are no exceptions any more"


@pytest.mark.parametrize("panel", SHOWN)
def test_panels_show_the_numbers_of_the_scenario(stack: RealStack, scenario: Scenario, panel: str) -> None:
    expected = {scenario.customer if label == "customer" else label: span for label, span in SHOWN[panel].items()}
    query = named(panel, scenario.customer)

    def shown() -> bool:
        samples = stack.samples(query.text)
        values = {next(iter(sample["metric"].values()), ""): float(sample["value"][1]) for sample in samples}
        # Other tests' customers, plans and meters are there as well.
        return all(low <= values.get(label, math.nan) <= high for label, (low, high) in expected.items())

    eventually(shown, seconds=90)


@pytest.mark.usefixtures("scenario")
def test_variables_offer_values(stack: RealStack) -> None:
    variables = [variable for dashboard in DASHBOARDS for variable in dashboard["templating"]["list"]]
    asked = {variable["query"] for variable in variables if variable["type"] == "query"}
    assert asked
    for query in asked:
        metric, label = query.removeprefix("label_values(").removesuffix(")").split(", ")
        address = f"http://{stack.addresses['Prometheus']}/api/v1/label/{label}/values"
        eventually(lambda address=address, metric=metric: answered_values(address, metric), seconds=60)  # type: ignore[misc]


def answered_values(address: str, metric: str) -> list[str]:
    found: list[str] = httpx.get(address, params={"match[]": metric}, timeout=30).raise_for_status().json()["data"]
    return found


def test_a_line_leads_to_its_trace_and_a_trace_to_its_lines(stack: RealStack, scenario: Scenario) -> None:
    query = named("meterscope-usage-customer: Log lines of the customer", scenario.customer)
    lines = eventually(lambda: stack.lines(query.text), seconds=60)
    sources = yaml.safe_load(SOURCES.read_text())["datasources"]
    by_type = {source["type"]: source["jsonData"] for source in sources}
    (field,) = by_type["loki"]["derivedFields"]
    trace_id = next(labels[field["matcherRegex"]] for labels, _ in lines)
    eventually(lambda: stack.trace(trace_id), seconds=60)
    # $$ is one $ in Grafana's files.
    back = by_type["jaeger"]["tracesToLogsV2"]["query"].replace("$${__trace.traceId}", trace_id)
    assert {line for _, line in stack.lines(back)} & {line for _, line in lines}


def test_the_marks_of_alerts_can_be_asked_for(stack: RealStack) -> None:
    for dashboard in DASHBOARDS:
        for mark in dashboard["annotations"]["list"]:
            stack.samples(mark["expr"])
