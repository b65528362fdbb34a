"""Every instrument is declared once, and the catalogue says what is declared."""

import re
import runpy
from pathlib import Path

from services.kit.instruments import CUSTOMER, Counter, Histogram

ROOT = Path(__file__).parents[2]
PROGRAM = runpy.run_path(str(ROOT / "scripts/instruments.py"))
DECLARED = PROGRAM["declared"]()

# The standing part of the catalogue: what rules, dashboards and users ask for by name. Labels as Prometheus has them.
PROMISED = {
    "billing_usage_increment_total": {"customer_id", "tenant_id", "metric_type"},
    "billing_usage_increment_errors_total": {"customer_id", "tenant_id", "metric_type", "error_type"},
    "billing_usage_percentage": {"customer_id", "tenant_id", "limit_type"},
    "billing_limit_exceeded_total": {"customer_id", "tenant_id", "limit_type"},
    "billing_events_ingested_total": {"outcome", "transport"},
    "billing_event_ingestion_duration_seconds": {"transport"},
    "billing_event_lag_seconds": set(),
    "billing_redis_operation_duration_seconds": {"operation"},
    "billing_redis_memory_bytes": set(),
    "billing_redis_usage_keys_total": set(),
    "billing_redis_connections_active": set(),
    "billing_tenants_per_plan": {"plan_id", "plan_name"},
    "billing_tenant_using_defaults": {"customer_id", "tenant_id"},
    "billing_api_requests_total": {"endpoint", "status_code"},
    "billing_http_requests_total": {"method", "route", "status_code"},
    "billing_http_request_duration_seconds": {"method", "route", "status_code"},
    "billing_cdr_processed_total": {"status", "call_type", "destination"},
    "billing_cdr_processing_duration_seconds": {"status"},
    "billing_jobs_total": {"queue", "job_name", "status"},
    "billing_job_processing_duration_seconds": {"queue", "job_name", "status"},
    "billing_jobs_queued": {"queue"},
    "billing_jobs_stuck": {"queue"},
    "billing_jobs_dead": {"queue"},
    "billing_last_job_timestamp": {"job_name"},
    "billing_db_connection_pool": {"service", "status"},
    "billing_db_connection_pool_utilization": {"service"},
    "billing_auth_failures_total": {"route"},
    "billing_component_up": {"component"},
    "billing_integrity_totals_drift": set(),
    "http_server_request_duration_seconds": {
        "http_request_method",
        "http_route",
        "http_response_status_code",
        "url_scheme",
    },
    "rpc_server_call_duration_seconds": {"rpc_system_name", "rpc_method", "rpc_response_status_code"},
    "rpc_client_call_duration_seconds": {"rpc_system_name", "rpc_method", "rpc_response_status_code"},
    "db_client_operation_duration_seconds": {"db_system_name", "db_namespace", "db_operation_name", "error_type"},
}


def test_the_catalogue_is_what_is_declared() -> None:
    assert (ROOT / "docs/metrics.md").read_text() == PROGRAM["render"](), "run: make metrics"


def test_instruments_are_made_from_declarations_alone() -> None:
    made = re.compile(r"\.create_(?:observable_)?(?:counter|up_down_counter|histogram|gauge)\(")
    sources = [path for folder in ("services", "gateway", "meterscope") for path in (ROOT / folder).rglob("*.py")]
    assert len(sources) > 100
    assert [path.relative_to(ROOT).as_posix() for path in sources if made.search(path.read_text())] == [
        "services/kit/instruments.py"
    ]


def test_what_is_promised_has_its_exact_labels() -> None:
    assert {name: set(DECLARED[name].prometheus_labels) for name in PROMISED} == PROMISED


def test_the_seeds_bounds_of_redis_are_kept() -> None:
    redis = DECLARED["billing_redis_operation_duration_seconds"]
    assert isinstance(redis, Histogram)
    assert redis.boundaries == (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1)


def test_what_rules_compare_histograms_with_is_a_declared_bound() -> None:
    rules = "".join(path.read_text() for path in sorted((ROOT / "otel-collector/prometheus/rules").glob("*.yml")))
    below = re.findall(r"(\w+)_bucket\{[^}]*\ble=\"([0-9.]+)\"", rules)
    above = re.findall(r"histogram_quantile\([^>]*?(\w+)_bucket[^>]*>\s*([0-9.]+)", rules)
    assert (len(below), len(above)) >= (1, 3)
    for name, bound in [*below, *above]:
        histogram = DECLARED[name]
        assert isinstance(histogram, Histogram)
        assert float(bound) in histogram.alerts, name


def test_customers_are_on_counters_and_gauges_only() -> None:
    by_customer = [each for each in DECLARED.values() if any(label.name == CUSTOMER for label in each.labels)]
    assert {each.kind for each in by_customer} == {"counter", "gauge"}


def test_counters_of_closed_labels_start_at_zero() -> None:
    closed = {
        name: len(each.zeros({}))
        for name, each in DECLARED.items()
        if isinstance(each, Counter) and all(label.values for label in each.labels)
    }
    # Five outcomes by four transports; amended and cancelled, in open and closed periods.
    assert closed["billing_events_ingested_total"] == 20
    assert closed["billing_event_corrections_total"] == 4
    assert closed["billing_customers_created_total"] == 1
