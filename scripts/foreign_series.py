"""Series that are not declared here, as others make them: what rules and dashboards may ask for beside our own."""

from typing import Final

# What Prometheus puts on every series that comes by OTLP (prometheus.yml promotes the resource's attributes).
RESOURCE_LABELS: Final = frozenset(
    {
        "job",
        "instance",
        "service_name",
        "service_namespace",
        "service_version",
        "deployment_environment_name",
        "host_name",
    }
)

_EXPORTER: Final = ("exporter", "data_type")
_SIGNALS: Final = ("spans", "metric_points", "log_records")

# Name to labels.
FOREIGN_SERIES: Final[dict[str, tuple[str, ...]]] = {
    # The collector, of itself.
    **{f"otelcol_receiver_accepted_{signal}_total": ("receiver", "transport") for signal in _SIGNALS},
    **{f"otelcol_receiver_refused_{signal}_total": ("receiver", "transport") for signal in _SIGNALS},
    **{f"otelcol_exporter_sent_{signal}_total": _EXPORTER for signal in _SIGNALS},
    **{f"otelcol_exporter_send_failed_{signal}_total": _EXPORTER for signal in _SIGNALS},
    **{f"otelcol_exporter_enqueue_failed_{signal}_total": _EXPORTER for signal in _SIGNALS},
    "otelcol_exporter_queue_size": _EXPORTER,
    "otelcol_exporter_queue_capacity": _EXPORTER,
    "otelcol_processor_tail_sampling_new_trace_id_received_total": (),
    "otelcol_processor_tail_sampling_sampling_traces_on_memory": (),
    "otelcol_processor_tail_sampling_sampling_trace_dropped_too_early_total": (),
    "otelcol_processor_tail_sampling_sampling_decision_timer_latency_milliseconds_bucket": ("le",),
    "otelcol_processor_tail_sampling_early_releases_from_cache_decision_total": ("sampled",),
    "otelcol_process_memory_rss_bytes": (),
    "otelcol_process_uptime_seconds_total": (),
    # The collector, of spans.
    "traces_span_metrics_calls_total": ("span_name", "span_kind", "status_code"),
    "traces_span_metrics_duration_seconds_bucket": ("span_name", "span_kind", "status_code", "le"),
    "traces_service_graph_request_total": ("client", "server", "connection_type"),
    "traces_service_graph_request_server_seconds_bucket": ("client", "server", "connection_type", "le"),
    # Prometheus, of rules.
    "ALERTS": ("alertname", "alertstate", "severity"),
}
