"""`/metrics` and its sisters over the real sink: what was exported is read back with Prometheus' own parsers."""

import gzip
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import grpc
import httpx
import pytest
from opentelemetry.metrics import Meter
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc as otlp_grpc
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1 import metrics_pb2 as otlp
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from running_gateway import running

from gateway.settings import Settings
from meterscope.alerts.v1 import metrics_service_pb2_grpc as metrics_grpc
from services.alerts.servicer import MetricsServicer, SinkServicer
from services.alerts.sink.latest import Latest
from services.kit.config import KitSettings
from services.kit.server import Server
from services.kit.settings import read
from services.kit.sink import SinkExporter

# What a Prometheus 3 asks for.
PROMETHEUS_ASKS = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
HARD = 'back\\slash, "quotes",\nnew line, ü'


@dataclass(frozen=True)
class Metered:
    """A gateway whose alerts service has the metrics of two processes."""

    http: httpx.Client

    def families(self, path: str, accept: str = "") -> dict[str, Any]:
        answer = self.http.get(path, headers={"accept": accept})
        assert answer.status_code == 200, answer.text
        parse = parse_openmetrics if answer.headers["content-type"] == OPENMETRICS else parse_text
        return {family.name: family for family in parse(answer.text)}  # type: ignore[no-untyped-call]


def measure(meter: Meter) -> None:
    meter.create_counter("billing.usage.increment", description="Usage\ncounted").add(
        3, {"customer_id": "cus_1", "metric_type": HARD}
    )
    meter.create_gauge("billing.component_up").set(1, {"component": "redis"})
    meter.create_up_down_counter("process.memory.usage", unit="By").add(1 << 20)
    duration = meter.create_histogram(
        "rpc.server.call.duration", unit="s", explicit_bucket_boundaries_advisory=(0.005, 1.0)
    )
    for value in (0.25, 0.5, 2.0):
        duration.record(value, {"rpc.method": "a.B/C"})


@pytest.fixture(scope="module")
def metered() -> Iterator[Metered]:
    latest = Latest(max_series=1000, max_bytes=1 << 30)

    def add(grpc_server: grpc.Server) -> None:
        metrics_grpc.add_MetricsServiceServicer_to_server(MetricsServicer(latest), grpc_server)
        otlp_grpc.add_MetricsServiceServicer_to_server(SinkServicer(latest), grpc_server)

    server = Server(
        "127.0.0.1:0",
        add,
        service_names=(),
        settings=read(KitSettings, {"METERSCOPE_SERVICE_TOKEN": "sesame", "METERSCOPE_GRACE_SECONDS": "0"}),
    )
    server.start()
    for name in ("usage", "usage-worker"):
        resource = Resource(
            {
                "service.namespace": "meterscope",
                "service.name": name,
                "service.instance.id": f"{name}-1",
                "process.pid": 7,
            }
        )
        reader = PeriodicExportingMetricReader(SinkExporter(server.address, "sesame"), float("inf"))
        provider = MeterProvider([reader], resource=resource, shutdown_on_exit=False)
        measure(provider.get_meter("tests"))
        reader.collect()
        provider.shutdown()
    # The SDK sends no such number; others may.
    odd = otlp.Gauge(data_points=[otlp.NumberDataPoint(as_double=float("-inf"), time_unix_nano=1)])
    scope = otlp.ScopeMetrics(metrics=[otlp.Metric(name="odd.number", gauge=odd)])
    latest.take(ExportMetricsServiceRequest(resource_metrics=[otlp.ResourceMetrics(scope_metrics=[scope])]))
    settings = read(
        Settings,
        {
            "METERSCOPE_GATEWAY_ADDRESS": "127.0.0.1:0",
            "METERSCOPE_SERVICE_TOKEN": "sesame",
            "METERSCOPE_GRACE_SECONDS": "2",
            **{f"METERSCOPE_{name}_ADDRESS": "127.0.0.1:1" for name in ("USAGE", "BILLING", "PAYMENTS")},
            "METERSCOPE_ALERTS_ADDRESS": server.address,
        },
    )
    with running(settings) as url, httpx.Client(base_url=url) as http:
        yield Metered(http)
    server.stop()


def samples(families: dict[str, Any], name: str) -> dict[str, list[Any]]:
    """A family's samples by their names."""
    found: dict[str, list[Any]] = {}
    for sample in families[name].samples:
        found.setdefault(sample.name, []).append(sample)
    return found


@pytest.mark.parametrize("accept", ["", "*/*", "text/plain", "text/html,*/*;q=0.8", PROMETHEUS_ASKS, OPENMETRICS])
def test_both_formats_say_the_same(metered: Metered, accept: str) -> None:
    families = metered.families("/metrics", accept)
    (first, second) = samples(families, "billing_usage_increment")["billing_usage_increment_total"]
    assert families["billing_usage_increment"].type == "counter"
    assert {first.labels["job"], second.labels["job"]} == {"meterscope/usage", "meterscope/usage-worker"}
    assert first.value == 3
    labels = {"customer_id": "cus_1", "tenant_id": "cus_1", "metric_type": HARD, "instance": "usage-1"}
    assert labels.items() <= first.labels.items()
    (one, _) = samples(families, "process_memory_usage_bytes")["process_memory_usage_bytes"]
    assert one.value == 1_048_576
    duration = samples(families, "rpc_server_call_duration_seconds")
    # Of 0.25, 0.5 and 2 none is up to 0.005, two are up to 1, and all are below infinity.
    buckets = {
        sample.labels["le"]: sample.value
        for sample in duration["rpc_server_call_duration_seconds_bucket"]
        if sample.labels["instance"] == "usage-1"
    }
    assert buckets == {"0.005": 0, "1.0": 2, "+Inf": 3}
    assert [sample.value for sample in duration["rpc_server_call_duration_seconds_count"]] == [3, 3]
    assert [sample.value for sample in duration["rpc_server_call_duration_seconds_sum"]] == [2.75, 2.75]


def test_a_prometheus_gets_openmetrics_and_others_text(metered: Metered) -> None:
    asked = {
        "": TEXT,
        "*/*": TEXT,
        "text/html,application/xhtml+xml,*/*;q=0.8": TEXT,
        "application/openmetrics-text": OPENMETRICS,
        "application/openmetrics-text;q=0": TEXT,
        "application/openmetrics-text;q=0.1,text/plain": TEXT,
        "application/openmetrics-text;version=0.0.1,text/plain;q=0.1": TEXT,
        'application/openmetrics-text; version="1.0.0"; q=nonsense': TEXT,
        PROMETHEUS_ASKS: OPENMETRICS,
    }
    for path in ("/metrics", "/api/metrics/billing"):
        for accept, expected in asked.items():
            answer = metered.http.get(path, headers={"accept": accept})
            assert (accept, answer.headers["content-type"]) == (accept, expected)
            assert answer.text.endswith("# EOF\n") == (expected == OPENMETRICS)


def test_units_and_help_of_the_openmetrics_text(metered: Metered) -> None:
    lines = metered.http.get("/metrics", headers={"accept": OPENMETRICS}).text.splitlines()
    assert "# UNIT rpc_server_call_duration_seconds seconds" in lines
    assert "# UNIT process_memory_usage_bytes bytes" in lines
    assert "# HELP billing_usage_increment Usage\\ncounted" in lines
    assert "# TYPE billing_usage_increment counter" in lines
    # As text the type is of the name that is asked for.
    text = metered.http.get("/metrics").text.splitlines()
    assert "# TYPE billing_usage_increment_total counter" in text


def test_the_processes_are_told_of_by_target_info(metered: Metered) -> None:
    text = metered.http.get("/metrics").text
    assert 'target_info{instance="usage-1",job="meterscope/usage",process_pid="7"} 1.0\n' in text
    assert "# TYPE target_info gauge" in text
    target = metered.families("/metrics", OPENMETRICS)["target"]
    assert (target.type, {sample.labels["process_pid"] for sample in target.samples}) == ("info", {"7"})


def test_billing_metrics_alone(metered: Metered) -> None:
    families = metered.families("/api/metrics/billing")
    assert set(families) == {"billing_usage_increment", "billing_component_up"}


def test_json_says_the_same(metered: Metered) -> None:
    answer = metered.http.get("/metrics/json")
    assert answer.headers["content-type"] == "application/json"
    families = {family["name"]: family for family in answer.json()["families"]}
    usage = families["billing_usage_increment_total"]
    assert (usage["kind"], usage["unit"], usage["description"]) == ("counter", "", "Usage\ncounted")
    (series, _) = usage["series"]
    assert series["value"] == 3
    assert series["labels"]["tenant_id"] == "cus_1"
    assert series["start_time"] <= series["time"]
    assert families["odd_number"]["series"][0]["value"] == "-Inf"
    duration = families["rpc_server_call_duration_seconds"]
    assert (duration["kind"], duration["unit"]) == ("histogram", "seconds")
    assert duration["series"][0]["buckets"] == [
        {"le": 0.005, "count": 0},
        {"le": 1.0, "count": 2},
        {"le": "+Inf", "count": 3},
    ]
    assert (duration["series"][0]["count"], duration["series"][0]["sum"]) == (3, 2.75)


@pytest.mark.parametrize("path", ["/metrics", "/metrics/json", "/api/metrics/billing"])
def test_answers_are_zipped_for_those_who_take_it(metered: Metered, path: str) -> None:
    plain = metered.http.get(path, headers={"accept-encoding": "identity"})
    assert "content-encoding" not in plain.headers
    for encoding, is_zipped in {"gzip": True, "gzip;q=0": False, "br, *;q=0.1": True, "*;q=0": False}.items():
        with metered.http.stream("GET", path, headers={"accept-encoding": encoding}) as answer:
            raw = b"".join(answer.iter_raw())
        assert (encoding, answer.headers.get("content-encoding") == "gzip") == (encoding, is_zipped)
        assert (gzip.decompress(raw) if is_zipped else raw) == plain.content
    assert plain.headers["vary"] == "accept, accept-encoding"
    assert plain.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("path", ["/metrics", "/metrics/json", "/api/metrics/billing"])
def test_head_tells_the_same_without_the_body(metered: Metered, path: str) -> None:
    head, got = metered.http.head(path), metered.http.get(path)
    assert (head.status_code, head.content) == (200, b"")
    for name in ("content-type", "content-length", "content-encoding"):
        assert head.headers[name] == got.headers[name]


def test_other_methods_are_refused(metered: Metered) -> None:
    answer = metered.http.post("/metrics")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("path", ["/metrics", "/metrics/json", "/api/metrics/billing"])
def test_without_alerts_the_answer_says_what_to_do(away: str, path: str) -> None:
    answer = httpx.get(f"{away}{path}", timeout=30)
    assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
    assert answer.json()["reason"] == "SERVICE_UNAVAILABLE"
    assert answer.json()["detail"] == (
        "the alerts service, which keeps the metrics, does not answer; see /health, and ask again in some seconds"
    )
    assert int(answer.headers["retry-after"]) >= 1


class Hanging(metrics_grpc.MetricsServiceServicer):
    """Answers when it is told to."""

    def __init__(self) -> None:
        self.released = threading.Event()

    def ReadMetrics(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        self.released.wait(60)
        yield from ()


def test_alerts_that_hang_are_given_up_before_a_scraper_gives_up(settings: Settings) -> None:
    hanging = Hanging()
    server = Server(
        "127.0.0.1:0",
        lambda grpc_server: metrics_grpc.add_MetricsServiceServicer_to_server(hanging, grpc_server),
        service_names=(),
        settings=read(KitSettings, {"METERSCOPE_GRACE_SECONDS": "2"}),
    )
    server.start()
    try:
        patient = replace(settings, alerts_address=server.address, deadline=timedelta(hours=1))
        with running(patient) as url:
            answer = httpx.get(f"{url}/metrics", timeout=30)
    finally:
        hanging.released.set()
        server.stop()
    assert (answer.status_code, answer.json()["reason"]) == (504, "DEADLINE_EXCEEDED")
    assert answer.json()["detail"].startswith("the alerts service, which keeps the metrics, does not answer")


def test_a_sink_that_has_nothing_yet_is_no_error(client: httpx.Client) -> None:
    assert client.get("/metrics").text == ""
    assert client.get("/metrics", headers={"accept": OPENMETRICS}).text == "# EOF\n"
    assert client.get("/metrics/json").json() == {"families": []}
