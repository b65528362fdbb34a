"""Names as Prometheus' own receiver gives them; the cases are those of its translator's rules."""

import sys
from pathlib import Path

import pytest
import yaml

from services.alerts.sink.names import label_name, metric_name, unit_of
from services.alerts.sink.points import PROMOTED

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "scripts"))
from instruments import declared  # noqa: E402 - the scripts are no package


@pytest.mark.parametrize(
    ("name", "unit", "kind", "expected"),
    [
        ("billing.usage.increment", "", "counter", "billing_usage_increment_total"),
        ("billing.total.increment", "", "counter", "billing_increment_total"),
        ("billing.event.lag", "s", "histogram", "billing_event_lag_seconds"),
        ("billing.lag.seconds", "s", "gauge", "billing_lag_seconds"),
        ("process.memory.usage", "By", "sum", "process_memory_usage_bytes"),
        ("process.cpu.time", "s", "counter", "process_cpu_time_seconds_total"),
        ("process.memory.utilization", "1", "gauge", "process_memory_utilization_ratio"),
        ("queue.share", "1", "sum", "queue_share"),
        ("requests", "1", "counter", "requests_total"),
        ("network.io", "By/s", "gauge", "network_io_bytes_per_second"),
        ("http.requests", "{request}/s", "gauge", "http_requests_per_second"),
        ("battery.level", "%", "gauge", "battery_level_percent"),
        ("odd--name..here", "widgets", "gauge", "odd_name_here_widgets"),
        ("a:b", "", "gauge", "a:b"),
        ("5xx.answers", "", "gauge", "_5xx_answers"),
        ("äö", "", "gauge", ""),
    ],
)
def test_names_of_metrics(name: str, unit: str, kind: str, expected: str) -> None:
    assert metric_name(name, unit, is_counter=kind == "counter", is_gauge=kind == "gauge") == expected


@pytest.mark.parametrize(
    ("name", "unit", "is_counter", "expected"),
    [
        ("process_cpu_time_seconds_total", "s", True, "seconds"),
        ("network_io_bytes_per_second", "By/s", False, "bytes_per_second"),
        ("lag_seconds_of_the_rollup", "s", False, ""),  # OpenMetrics allows a unit at the end alone
        ("requests_total", "{request}", True, ""),
        ("share_ratio", "1", False, ""),
    ],
)
def test_units(name: str, unit: str, expected: str, *, is_counter: bool) -> None:
    assert unit_of(name, unit, is_counter=is_counter) == expected


@pytest.mark.parametrize(
    ("attribute", "expected"),
    [
        ("http.request.method", "http_request_method"),
        ("customer_id", "customer_id"),
        ("whatsappSessions", "whatsappSessions"),
        ("a..b", "a__b"),
        ("2nd", "key_2nd"),
        ("_own", "key_own"),
        ("__reserved", "__reserved"),
        ("größe", "gr__e"),
        ("...", ""),
        ("", ""),
    ],
)
def test_names_of_labels(attribute: str, expected: str) -> None:
    assert label_name(attribute) == expected


def test_every_declared_instrument_has_its_name_here() -> None:
    for name, declaration in declared().items():
        kind = declaration.kind
        translated = metric_name(
            declaration.name, declaration.unit, is_counter=kind == "counter", is_gauge=kind == "gauge"
        )
        assert translated == name
        labels = {label_name(label.name) for label in declaration.labels}
        assert labels == set(declaration.prometheus_labels) - {"tenant_id"}


def test_the_sink_promotes_what_prometheus_promotes() -> None:
    config = yaml.safe_load((ROOT / "otel-collector/prometheus/prometheus.yml").read_text())
    assert list(PROMOTED) == config["otlp"]["promote_resource_attributes"]
