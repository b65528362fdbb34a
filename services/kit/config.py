"""Settings that every process has, whatever its service."""

from dataclasses import dataclass
from datetime import timedelta
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from urllib.parse import urlsplit

from services.kit.settings import variable


def package_version() -> str:
    """Return the installed version of Meterscope, `0.0.0` from a tree that is not installed."""
    try:
        return version("meterscope")
    except PackageNotFoundError:
        return "0.0.0"


def check_dsn(dsn: str) -> None:
    """Refuse what is no Sentry DSN.

    Raises:
        ValueError: what is wrong with it.
    """
    parts = urlsplit(dsn)
    if parts.scheme not in {"http", "https"} or not parts.username or not parts.path.strip("/"):
        raise ValueError("is not a DSN such as https://KEY@HOST/PROJECT")


@dataclass(frozen=True)
class KitSettings:
    """What the kit itself needs. The exporters read the standard OTEL_* variables themselves."""

    environment: str = variable(
        "METERSCOPE_ENVIRONMENT", default="development", help="development, staging, production, test"
    )
    version: str = variable("APP_VERSION", default=package_version(), help="the version that telemetry reports")
    data_dir: Path | None = variable(
        "METERSCOPE_DATA_DIR", default=None, help="folder whose disk telemetry watches; the working folder without it"
    )
    log_level: str = variable(
        "LOG_LEVEL",
        default="INFO",
        choices=("DEBUG", "INFO", "WARNING", "ERROR"),
        help="least level that is logged: DEBUG, INFO, WARNING or ERROR",
    )
    log_dir: Path | None = variable(
        "LOG_DIR", default=None, help="folder for log files beside standard output; any number of processes share it"
    )
    log_file_bytes: int = variable(
        "LOG_FILE_BYTES", default=20_000_000, minimum=1_000, help="size at which a log file is set aside"
    )
    log_retention_days: int = variable(
        "LOG_RETENTION_DAYS", default=30, minimum=1, help="days that log files are kept which were set aside"
    )
    log_files: int = variable(
        "LOG_FILES", default=100, minimum=1, help="log files kept which were set aside, of each kind and process"
    )
    otlp_endpoint: str | None = variable(
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        default=None,
        help="OTLP/gRPC collector; without it traces and logs are not sent anywhere",
    )
    metrics_sink: str | None = variable(
        "METERSCOPE_METRICS_SINK",
        default=None,
        help="host:port of the alerts service, to which metrics go where there is no collector, for /metrics",
    )
    trace_file: Path | None = variable(
        "METERSCOPE_TRACE_FILE", default=None, help="spans are appended here as JSON lines"
    )
    service_token: str | None = variable(
        "METERSCOPE_SERVICE_TOKEN",
        default=None,
        secret=True,
        help="bearer token between the services; without it servers listen on loopback only",
    )
    sentry_dsn: str | None = variable(
        "SENTRY_DSN", default=None, secret=True, check=check_dsn, help="where errors are reported"
    )
    jaeger_url: str | None = variable("JAEGER_URL", default=None, help="base URL of Jaeger, for links to traces")
    grpc_threads: int = variable(
        "METERSCOPE_GRPC_THREADS", default=32, minimum=1, help="calls that a server handles at once"
    )
    cpu_affinity: str = variable(
        "METERSCOPE_CPU_AFFINITY",
        default="one",
        choices=("one", "any"),
        help="cores that a server process uses: one, which is faster; any, where the system puts it",
    )
    grace: timedelta = variable(
        "METERSCOPE_GRACE_SECONDS",
        default=timedelta(seconds=10),
        minimum=0,
        help="time that running calls and jobs get at a stop",
    )
    stream_idle: timedelta = variable(
        "METERSCOPE_STREAM_IDLE_SECONDS",
        default=timedelta(seconds=60),
        minimum=0.01,
        help="time after which a caller that sends nothing over its stream, or does not take its answers, is sent away",
    )
    worker_threads: int = variable(
        "METERSCOPE_WORKER_THREADS", default=8, minimum=1, help="jobs that a worker runs at once"
    )
    outbox_retention: timedelta = variable(
        "METERSCOPE_OUTBOX_RETENTION_SECONDS",
        default=timedelta(days=30),
        minimum=0,
        help="time that jobs which are done stay in the outbox",
    )
    request_retention: timedelta = variable(
        "METERSCOPE_REQUEST_RETENTION_SECONDS",
        default=timedelta(days=30),
        minimum=0,
        help="time for which a repeated request_id gets the first answer",
    )
