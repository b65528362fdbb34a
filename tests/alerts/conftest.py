"""The alerts service in this process: gRPC server and worker over real PostgreSQL and Valkey, and a webhook receiver."""

from collections.abc import Callable, Iterator

import grpc
import pytest
from alerts_service import TRIES, AlertsService
from webhook_receiver import Receiver

from services.alerts.__main__ import MIGRATIONS, SERVICE, build_server, build_worker
from services.alerts.settings import Settings
from services.kit.channel import open_channel
from services.kit.migrate import migrate
from services.kit.server import Server
from services.kit.settings import read


@pytest.fixture(scope="module")
def environ(database_url: str, redis_url: str) -> dict[str, str]:
    """Variables of a service that may post to this machine and tries four times, quickly."""
    return {
        "ALERTS_DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "METERSCOPE_ALERTS_ADDRESS": "127.0.0.1:0",
        "METERSCOPE_ALERTS_WORKER_ADDRESS": "127.0.0.1:0",
        "METERSCOPE_ALLOW_PRIVATE_WEBHOOKS": "true",
        "METERSCOPE_NOTIFICATION_ATTEMPTS": str(TRIES),
        "METERSCOPE_NOTIFICATION_RETRY_SECONDS": "0.05",
        "METERSCOPE_WEBHOOK_TIMEOUT_SECONDS": "0.5",
        "METERSCOPE_WORKER_THREADS": "4",
        "METERSCOPE_ENVIRONMENT": "test",
        "JAEGER_URL": "http://jaeger.test:16686/",
        "GRAFANA_URL": "http://grafana.test",
    }


@pytest.fixture(scope="module")
def settings(environ: dict[str, str]) -> Settings:
    """Settings of a service whose schema is there."""
    found = read(Settings, environ)
    migrate(found.database_url, found.database_schema, MIGRATIONS, SERVICE)
    return found


@pytest.fixture(scope="module")
def serve(settings: Settings) -> Iterator[Callable[[Settings], AlertsService]]:
    """Start gRPC servers."""
    servers: list[Server] = []
    channels: list[grpc.Channel] = []

    def start(with_settings: Settings) -> AlertsService:
        servers.append(build_server(with_settings))
        port = servers[-1].start()
        channels.append(open_channel(f"127.0.0.1:{port}", settings.kit))
        return AlertsService(channels[-1])

    yield start
    for channel in channels:
        channel.close()
    for server in servers:
        server.stop()


@pytest.fixture(scope="module")
def server(serve: Callable[[Settings], AlertsService], settings: Settings) -> AlertsService:
    """The gRPC server alone: what it is told to deliver waits."""
    return serve(settings)


@pytest.fixture(scope="module")
def service(server: AlertsService, settings: Settings) -> Iterator[AlertsService]:
    """The server and a worker."""
    worker = build_worker(settings)
    worker.start()
    yield server
    worker.stop()


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    """Takes webhooks."""
    running = Receiver()
    yield running
    running.close()
