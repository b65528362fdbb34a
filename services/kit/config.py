"""Settings that every process has, whatever its service."""

from dataclasses import dataclass
from datetime import timedelta
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from services.kit.settings import variable


def package_version() -> str:
    """Return the installed version of Meterscope, `0.0.0` from a tree that is not installed."""
    try:
        return version("meterscope")
    except PackageNotFoundError:
        return "0.0.0"


@dataclass(frozen=True)
class KitSettings:
    """What the kit itself needs. The exporters read the standard OTEL_* variables themselves."""

    environment: str = variable(
        "METERSCOPE_ENVIRONMENT", default="development", help="development, staging, production, test"
    )
    version: str = variable("APP_VERSION", default=package_version(), help="the version that telemetry reports")
    log_level: str = variable(
        "LOG_LEVEL",
        default="INFO",
        choices=("DEBUG", "INFO", "WARNING", "ERROR"),
        help="least level that is logged: DEBUG, INFO, WARNING or ERROR",
    )
    otlp_endpoint: str | None = variable(
        "OTEL_EXPORTER_OTLP_ENDPOINT", default=None, help="OTLP/gRPC collector; without it telemetry goes nowhere"
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
    sentry_dsn: str | None = variable("SENTRY_DSN", default=None, secret=True, help="where errors are reported")
    grpc_threads: int = variable(
        "METERSCOPE_GRPC_THREADS", default=32, minimum=1, help="calls that a server handles at once"
    )
    grace: timedelta = variable(
        "METERSCOPE_GRACE_SECONDS",
        default=timedelta(seconds=10),
        minimum=0,
        help="time that running calls and jobs get at a stop",
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
