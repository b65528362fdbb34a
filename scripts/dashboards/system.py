"""The processes, the machine, PostgreSQL's pools, Redis and the telemetry pipeline itself."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from scripts.dashboards.board import Row, board, service
from scripts.dashboards.panel import (
    BYTES,
    COUNT,
    MILLISECONDS,
    PER_SECOND,
    SHARE,
    Panel,
    Query,
    bars,
    fail_at,
    good_from,
    lines,
    number,
    warn_and_fail_at,
    warn_at,
)
from scripts.dashboards.promql import foreign_latest, foreign_per_second, foreign_quantile, latest, lowest, per_second

_OF_SERVICE = 'service_name=~"$service"'
_PROCESS = ("service_name", "instance")
_IDLE = 'state="idle"'
_SIGNALS = ("spans", "metric_points", "log_records")
_SAMPLING = "otelcol_processor_tail_sampling"
# Sent the latest points only, and may be away: the rule leaves it out as well.
_NO_SINK = 'exporter!="otlp_grpc/sink"'


def system() -> Dashboard:
    """Return the dashboard."""
    return board(
        "meterscope-system",
        "System health",
        "Whether everything is there and has room: processes, the machine, connection pools, Redis, the collector.",
        [_components(), _processes(), _machine(), _pools(), _collector()],
        variables=[service()],
    )


def _components() -> Row:
    return Row(
        "Components",
        [
            [
                bars(
                    "What the processes reach",
                    Query(lowest("billing_component_up", by=("component",)), "{{component}}"),
                    unit=COUNT,
                    shows="1 where all processes that need a component reach it, 0 where one of them does not.",
                    normal="1 for each.",
                    bounds=good_from(0.5, 1),
                    worst="red",
                    alerts=("BillingDatabaseDown", "BillingRedisDown", "BillingServiceDown"),
                ),
                lines(
                    "What each process reaches",
                    Query(
                        latest("billing_component_up", _OF_SERVICE, by=("service_name", "component")),
                        "{{service_name}} → {{component}}",
                    ),
                    unit=COUNT,
                    shows="1 where a process reaches what it needs, 0 where it does not.",
                    normal="1 for each.",
                ),
            ]
        ],
    )


def _processes() -> Row:
    return Row(
        "Processes",
        [
            [
                lines(
                    "Memory",
                    Query(
                        latest("process_memory_usage_bytes", _OF_SERVICE, by=_PROCESS), "{{service_name}} {{instance}}"
                    ),
                    unit=BYTES,
                    shows="Resident memory of each process.",
                    normal="below 250 MB each, level after an hour.",
                ),
                lines(
                    "Used share of the memory allowed",
                    Query(
                        latest("process_memory_utilization_ratio", _OF_SERVICE, by=_PROCESS),
                        "{{service_name}} {{instance}}",
                    ),
                    unit=SHARE,
                    shows="Resident memory of each process over what it may have: its container's limit, or the machine's memory.",
                    normal="below 80 %.",
                    bounds=warn_and_fail_at(0.8, 0.9),
                    alerts=("BillingMemoryHigh", "BillingMemoryCritical"),
                ),
                lines(
                    "Processor time",
                    Query(
                        per_second("process_cpu_time_seconds_total", _OF_SERVICE, by=_PROCESS),
                        "{{service_name}} {{instance}}",
                    ),
                    unit=SHARE,
                    shows="Processor time that each process uses each second; 100 % is one core.",
                    normal="follows the load; a process that stays at 100 % needs another beside it.",
                    bounds=warn_at(0.9),
                ),
            ],
            [
                lines(
                    "Threads",
                    Query(latest("process_thread_count", _OF_SERVICE, by=_PROCESS), "{{service_name}} {{instance}}"),
                    unit=COUNT,
                    shows="Threads of each process.",
                    normal="steady.",
                ),
                lines(
                    "Open files",
                    Query(
                        latest("process_unix_file_descriptor_count", _OF_SERVICE, by=_PROCESS),
                        "{{service_name}} {{instance}}",
                    ),
                    unit=COUNT,
                    shows="File descriptors that each process has open, connections among them.",
                    normal="steady.",
                ),
                lines(
                    "Garbage collections",
                    Query(
                        per_second(
                            "cpython_gc_collections_total",
                            _OF_SERVICE,
                            'cpython_gc_generation="2"',
                            by=_PROCESS,
                        ),
                        "{{service_name}} {{instance}}",
                    ),
                    unit=PER_SECOND,
                    shows="Full runs of the garbage collector each second.",
                    normal="below 1.",
                ),
            ],
        ],
    )


def _machine() -> Row:
    return Row(
        "Machine",
        [
            [
                lines(
                    "Processors, memory",
                    Query(
                        f"1 - {lowest('system_cpu_utilization_ratio', _IDLE, by=('host_name',))}",
                        "{{host_name}} processors busy",
                    ),
                    Query(
                        latest("system_memory_utilization_ratio", 'state="used"', by=("host_name",)),
                        "{{host_name}} memory used",
                    ),
                    unit=SHARE,
                    shows="Share of each machine's processor time that is used, and of its memory.",
                    normal="below 80 %.",
                    bounds=warn_and_fail_at(0.8, 0.9),
                    alerts=("BillingCpuHigh", "BillingMemoryHigh", "BillingMemoryCritical"),
                ),
                lines(
                    "Disks",
                    Query(
                        latest("system_filesystem_utilization_ratio", by=("host_name", "device", "mountpoint")),
                        "{{host_name}} {{mountpoint}} ({{device}})",
                    ),
                    unit=SHARE,
                    shows="Used share of the disks that data folders are on.",
                    normal="below 85 %. A full disk stops PostgreSQL.",
                    bounds=warn_and_fail_at(0.85, 0.95),
                    alerts=("BillingDiskFull",),
                ),
                number(
                    "Room on the disks",
                    Query(
                        latest("billing_disk_free_bytes", by=("host_name", "mountpoint")),
                        "{{host_name}} {{mountpoint}}",
                    ),
                    unit=BYTES,
                    shows="Bytes that may still be written.",
                    normal="more than a week's growth.",
                    bounds=good_from(2e9, 1e10),
                    worst="red",
                ),
            ]
        ],
    )


def _pools() -> Row:
    return Row(
        "PostgreSQL and Redis",
        [
            [
                lines(
                    "Connections by pool",
                    Query(
                        latest("billing_db_connection_pool", _OF_SERVICE, by=("service_name", "status")),
                        "{{service_name}} {{status}}",
                    ),
                    unit=COUNT,
                    shows="Connections of the processes' pools to PostgreSQL, by status; `waiting` are threads that have none.",
                    normal="none waits.",
                ),
                lines(
                    "Busy share of pools",
                    Query(
                        latest("billing_db_connection_pool_utilization", _OF_SERVICE, by=("service_name",)),
                        "{{service_name}}",
                    ),
                    unit=SHARE,
                    shows="Busy connections over the pool's size.",
                    normal="below 80 %.",
                    bounds=warn_and_fail_at(0.8, 0.95),
                    alerts=("BillingDatabasePoolHigh",),
                ),
                lines(
                    "Redis",
                    Query(latest("billing_redis_memory_bytes"), "memory"),
                    unit=BYTES,
                    shows="Memory that Redis uses. More about it: the dashboard Redis health.",
                    normal="levels off within a month.",
                ),
            ]
        ],
    )


def _collector() -> Row:
    refused = [f"otelcol_receiver_refused_{signal}_total" for signal in _SIGNALS]
    lost = [f"otelcol_exporter_enqueue_failed_{signal}_total" for signal in _SIGNALS]
    failed = [f"otelcol_exporter_send_failed_{signal}_total" for signal in _SIGNALS]
    taken = [f"otelcol_receiver_accepted_{signal}_total" for signal in _SIGNALS]
    return Row(
        "Collector",
        [
            [
                lines(
                    "Queues on disk",
                    Query(
                        f"{foreign_latest('otelcol_exporter_queue_size', by=('exporter', 'data_type'))}"
                        f" / {foreign_latest('otelcol_exporter_queue_capacity', by=('exporter', 'data_type'))}",
                        "{{exporter}} {{data_type}}",
                    ),
                    unit=SHARE,
                    shows="How full the collector's queues are. They fill while Prometheus, Loki or Jaeger is away.",
                    normal="near 0.",
                    bounds=warn_and_fail_at(0.5, 0.9),
                    alerts=("BillingCollectorQueueFilling", "BillingCollectorDown"),
                ),
                lines(
                    "Taken in",
                    *(
                        Query(foreign_per_second(name), signal.replace("_", " "))
                        for name, signal in zip(taken, _SIGNALS, strict=True)
                    ),
                    unit=PER_SECOND,
                    shows="Spans, metric points and log records that the collector takes in each second.",
                    normal="follows the load; it never stops, as metrics come every 15 s.",
                ),
            ],
            [
                lines(
                    "Refused",
                    *(
                        Query(foreign_per_second(name), f"{signal.replace('_', ' ')}, senders are told")
                        for name, signal in zip(refused, _SIGNALS, strict=True)
                    ),
                    *(
                        Query(
                            f"{foreign_per_second(name, _NO_SINK)} or vector(0)",
                            f"{signal.replace('_', ' ')}, queue full",
                        )
                        for name, signal in zip(lost, _SIGNALS, strict=True)
                    ),
                    unit=PER_SECOND,
                    shows="What the collector did not take each second, over its memory limit or with a full queue. Senders try "
                    "again for a while, then drop it.",
                    normal="0.",
                    bounds=fail_at(0.001),
                    alerts=("BillingCollectorDropping", "BillingCollectorRefusing"),
                ),
                lines(
                    "Failed attempts to send",
                    *(
                        Query(f"{foreign_per_second(name, _NO_SINK)} or vector(0)", signal.replace("_", " "))
                        for name, signal in zip(failed, _SIGNALS, strict=True)
                    ),
                    unit=PER_SECOND,
                    shows="What could not be sent to its backend for good. Attempts that are repeated are not counted here: they show "
                    "in the queues. The sink behind /metrics is left out: it may be away.",
                    normal="0.",
                    bounds=fail_at(0.001),
                ),
                lines(
                    "Memory",
                    Query(foreign_latest("otelcol_process_memory_rss_bytes", by=("instance",)), "{{instance}}"),
                    unit=BYTES,
                    shows="Resident memory of the collector.",
                    normal="below its limit, 400 MiB.",
                    bounds=warn_at(400 * 1024 * 1024),
                ),
            ],
            _sampling(),
        ],
    )


def _sampling() -> list[Panel]:
    late = f"{_SAMPLING}_early_releases_from_cache_decision_total"
    return [
        lines(
            "Traces that wait for a decision",
            Query(foreign_latest(f"{_SAMPLING}_sampling_traces_on_memory", by=("instance",)), "{{instance}}"),
            unit=COUNT,
            shows="Traces that each collector holds until it decides whether to keep them, 30 s after they began.",
            normal="below 50,000, which is all that it holds: then the oldest are given up.",
            bounds=warn_and_fail_at(40_000, 50_000),
        ),
        lines(
            "Traces given up before a decision",
            Query(foreign_per_second(f"{_SAMPLING}_sampling_trace_dropped_too_early_total"), "given up"),
            unit=PER_SECOND,
            shows="Traces that made room for newer ones each second, before it was decided whether to keep them.",
            normal="0.",
            bounds=fail_at(0.001),
            alerts=("BillingCollectorTracesDropped",),
        ),
        lines(
            "Time that decisions take",
            *(
                Query(
                    foreign_quantile(share, f"{_SAMPLING}_sampling_decision_timer_latency_milliseconds"),
                    f"p{share * 100:.0f}",
                )
                for share in (0.5, 0.95)
            ),
            unit=MILLISECONDS,
            shows="How long a turn takes in which the collector decides on the traces whose wait is over. There is one each second.",
            normal="below 100 ms.",
            bounds=warn_and_fail_at(500, 1000),
        ),
        lines(
            "Spans after the decision",
            *(
                Query(f"{foreign_per_second(late, matcher)} or vector(0)", legend)
                for matcher, legend in (('sampled="true"', "kept"), ('sampled="false"', "not kept"))
            ),
            unit=PER_SECOND,
            shows="Spans each second that come when their trace has been decided on already. They share its fate.",
            normal="few; jobs that ran for longer than 30 s.",
        ),
    ]
