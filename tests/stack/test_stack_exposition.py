"""A real Prometheus that only scrapes the gateway has what one behind the collector has."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from eventually import eventually
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, MetricExportResult
from opentelemetry.sdk.resources import Resource
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from tests.e2e.running import Running, start, stop
from tests.ports import free_ports
from tests.usage.usage_harness import Client, event

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "scripts"))
import stack_programs  # noqa: E402 - the scripts are no package
import stack_running  # noqa: E402 - likewise

pytestmark = pytest.mark.stack

OURS = [f"{name}{suffix}" for name in ("usage", "billing", "payments", "alerts") for suffix in ("", "-worker")]
OF_INTEREST = '{__name__=~"(billing|rpc|http|db)_.*", job=~"meterscope/(gateway|usage|billing|payments|alerts).*"}'

Labels = frozenset[tuple[str, str]]


@dataclass(frozen=True)
class Prometheus:
    """A running Prometheus."""

    address: str

    def series(self, query: str = OF_INTEREST) -> set[Labels]:
        """The labels of every series that a query finds now, the name among them."""
        answer = httpx.get(f"http://{self.address}/api/v1/query", params={"query": query}, timeout=30)
        answer.raise_for_status()
        return {frozenset(_alike(found["metric"]).items()) for found in answer.json()["data"]["result"]}

    def of(self, running: Running) -> set[Labels]:
        """The series of one Meterscope's processes."""
        instances = instances_of(running)
        return {labels for labels in self.series() if dict(labels)["instance"] in instances}

    def value(self, query: str) -> str | None:
        answer = httpx.get(f"http://{self.address}/api/v1/query", params={"query": query}, timeout=30)
        found: list[Any] = answer.raise_for_status().json()["data"]["result"]
        return str(found[0]["value"][1]) if found else None


def _alike(labels: dict[str, str]) -> dict[str, str]:
    """Bounds from a million on: what comes by OTLP says 2592000, what is scraped 2.592e+06, whoever wrote it."""
    if re.fullmatch(r"[0-9.]+e\+[0-9]+", labels.get("le", "")):
        return {**labels, "le": f"{float(labels['le']):.0f}"}
    return labels


def instances_of(running: Running) -> set[str]:
    return {f"{socket.gethostname()}-{pid}" for pid in running.run["pids"].values()}


def shapes(series: set[Labels]) -> dict[str, set[str]]:
    """The names of the labels by the name of the metric."""
    found: dict[str, set[str]] = {}
    for labels in series:
        found.setdefault(dict(labels)["__name__"], set()).update(name for name, _ in labels)
    return found


@contextmanager
def program(name: str, arguments: list[str], folder: Path, health: str, **environ: str) -> Iterator[None]:
    binary = stack_programs.programs(["otelcol", "prometheus"])[name]
    with (folder / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            [str(binary), *arguments], cwd=folder, env={**os.environ, **environ}, stdout=log, stderr=log
        )

    def healthy() -> bool:
        assert process.poll() is None, (folder / f"{name}.log").read_text()[-2000:]
        try:
            return httpx.get(health).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    try:
        eventually(healthy, seconds=60)
        yield
    finally:
        process.terminate()
        process.wait(30)


@dataclass(frozen=True)
class World:
    """Two of Meterscope, with and without a collector, and two of Prometheus.

    Attributes:
        endpoint: the collector's.
        collected: sends to a collector, which sends to `behind` and to the sink.
        alone: has no collector.
        behind: gets everything by OTLP.
        scraping: scrapes both gateways, as scrape-gateway.yml says.
    """

    endpoint: str
    collected: Running
    alone: Running
    behind: Prometheus
    scraping: Prometheus


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("exposition")
    ports = stack_running.Ports.in_a_row(free_ports(10))
    plan = {each.name: each for each in stack_running.plan(folder, ports)}
    first, second = free_ports(20), 0
    while not second or abs(second - first) < 20:
        second = free_ports(20)
    with ExitStack() as running:
        for name, more in {"prometheus": {}, "otelcol": {"COLLECTOR_SINK": f"127.0.0.1:{first + 4}"}}.items():
            planned = plan[name]
            environ = {**planned.environment, **more}
            running.enter_context(program(name, list(planned.arguments), folder, planned.health, **environ))
        endpoint = f"http://127.0.0.1:{ports.otlp_grpc}"
        collected = start(folder / "collected", first, OTEL_EXPORTER_OTLP_ENDPOINT=endpoint)
        running.callback(stop, collected)
        alone = start(folder / "alone", second)
        running.callback(stop, alone)
        scraper = free_ports()
        running.enter_context(
            program(
                "prometheus",
                [
                    f"--config.file={scrape_config(folder, [first, second])}",
                    f"--storage.tsdb.path={folder / 'scraper'}",
                    f"--web.listen-address=127.0.0.1:{scraper}",
                ],
                folder,
                f"http://127.0.0.1:{scraper}/-/ready",
            )
        )
        for each in (collected, alone):
            use(each)
        yield World(
            endpoint, collected, alone, Prometheus(f"127.0.0.1:{ports.prometheus}"), Prometheus(f"127.0.0.1:{scraper}")
        )


def scrape_config(folder: Path, gateways: list[int]) -> Path:
    """The shipped example with our gateways' ports; rules are another test's."""
    config = yaml.safe_load((ROOT / "otel-collector/prometheus/scrape-gateway.yml").read_text())
    del config["rule_files"]
    (job,) = config["scrape_configs"]
    job["static_configs"] = [{"targets": [f"127.0.0.1:{port}" for port in gateways]}]
    job["scrape_interval"] = "3s"
    written = folder / "scrape.yml"
    written.write_text(yaml.safe_dump(config))
    return written


def use(running: Running) -> None:
    """Let one customer send two requests and reach its limit of two, then ask by REST."""
    with running.channel("usage") as channel:
        client = Client.on(channel)
        client.create_meter("requests")
        customer = client.put_customer(limits={"requests": "2"}, thresholds=[100])
        client.ingest(event(customer), event(customer))
    gateway = f"http://{running.run['gateway']}"
    assert httpx.get(f"{gateway}/v1/meters").status_code == httpx.codes.OK


def test_the_collector_and_the_gateway_give_the_same_series(world: World) -> None:
    """Label by label: names, customers and tenants, jobs and instances, bounds of buckets."""
    eventually(lambda: world.behind.value("billing_usage_increment_total") == "2", seconds=90)

    def differing() -> set[Labels]:
        return world.behind.of(world.collected) ^ world.scraping.of(world.collected)

    with suppress(AssertionError):  # the one below says what differs
        eventually(lambda: world.behind.of(world.collected) and not differing(), seconds=60)
    assert differing() == set()
    found = world.scraping.of(world.collected)
    jobs = {dict(labels)["job"] for labels in found}
    assert jobs == {f"meterscope/{name}" for name in [*OURS, "gateway"]}
    (usage,) = [dict(each) for each in found if dict(each)["__name__"] == "billing_usage_increment_total"]
    assert usage["tenant_id"] == usage["customer_id"] != ""
    assert usage["service_namespace"] == "meterscope"
    # Each family is there, with bounds that are whole numbers as OTLP gives them.
    assert {dict(each)["__name__"].split("_")[0] for each in found} == {"billing", "rpc", "http", "db"}
    bounds = {dict(each)["le"] for each in found if "le" in dict(each)}
    assert {"1", "0.5", "+Inf"} <= bounds
    assert not any(re.fullmatch(r"\d+\.0", bound) for bound in bounds)


def test_without_a_collector_names_and_labels_are_the_same(world: World) -> None:
    optional = {"error_type"}  # where a statement failed

    def shape(series: set[Labels]) -> dict[str, set[str]]:
        return {name: labels - optional for name, labels in shapes(series).items()}

    def same() -> bool:
        alone = shape(world.scraping.of(world.alone))
        return bool(alone) and alone == shape(world.behind.of(world.collected))

    eventually(same, seconds=90)
    usage = [dict(each) for each in world.scraping.of(world.alone)]
    (counted,) = [each for each in usage if each["__name__"] == "billing_usage_increment_total"]
    assert counted["tenant_id"] == counted["customer_id"] != ""


def test_the_scrape_keeps_who_measured_and_says_how_it_went_itself(world: World) -> None:
    assert world.scraping.series('{__name__=~".+", exported_job=~".+"}') == set()
    targets = {dict(labels)["instance"] for labels in world.scraping.series('up{job="meterscope-gateway"} == 1')}
    assert targets == {world.collected.run["gateway"], world.alone.run["gateway"]}
    # What each process is, by the same job and instance as its series.
    told = {dict(labels)["instance"] for labels in world.scraping.series("target_info")}
    assert told >= instances_of(world.alone) - {f"{socket.gethostname()}-{pid}" for pid in engines(world.alone)}


def engines(running: Running) -> set[int]:
    """PostgreSQL and Valkey, and the supervisor: they measure nothing."""
    pids = running.run["pids"]
    return {pid for name, pid in pids.items() if name not in {*OURS, "gateway"}}


def test_openmetrics_of_all_processes_can_be_parsed_strictly(world: World) -> None:
    answer = httpx.get(
        f"http://{world.alone.run['gateway']}/metrics", headers={"accept": "application/openmetrics-text"}
    )
    families = list(text_string_to_metric_families(answer.text))  # type: ignore[no-untyped-call]
    assert len(families) > 20


def test_a_sink_that_hangs_fails_no_export_and_is_told_by_the_collector(world: World) -> None:
    lost = 'otelcol_exporter_send_failed_metric_points_total{exporter="otlp_grpc/sink"}'
    assert world.behind.value(lost) in {None, "0"}
    alerts = world.collected.run["pids"]["alerts"]
    exporter = OTLPMetricExporter(endpoint=world.endpoint, insecure=True)
    reader = InMemoryMetricReader()
    meter = MeterProvider([reader], Resource({"service.name": "sender"}), shutdown_on_exit=False).get_meter("tests")
    counter = meter.create_counter("sent")
    os.kill(alerts, signal.SIGSTOP)
    try:
        for _ in range(50):
            counter.add(1)
            data = reader.get_metrics_data()
            assert data is not None
            assert exporter.export(data) is MetricExportResult.SUCCESS
        # As the rule that leaves it out names it, and after nobody else's failure.
        eventually(lambda: world.behind.value(lost) not in {None, "0"}, seconds=60)
    finally:
        os.kill(alerts, signal.SIGCONT)
        exporter.shutdown()
    eventually(lambda: world.behind.value("sent_total") == "50", seconds=30)
