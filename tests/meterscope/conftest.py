"""Servers for the client's tests."""

from collections.abc import Callable, Iterator
from concurrent import futures

import grpc
import pytest
from eventually import eventually
from fake_usage import Failure, FakeUsage, RunningUsage
from usage_process import UsageProcess

from meterscope.usage.v1 import event_service_pb2_grpc, meter_service_pb2_grpc


@pytest.fixture
def start_usage() -> Iterator[Callable[..., RunningUsage]]:
    servers: list[grpc.Server] = []

    def start(*failures: Failure, is_open: bool = True, address: str = "127.0.0.1:0") -> RunningUsage:
        servicer = FakeUsage(failures=list(failures))  # type: ignore[abstract]
        if is_open:
            servicer.gate.set()
        server = grpc.server(futures.ThreadPoolExecutor(4))
        event_service_pb2_grpc.add_EventServiceServicer_to_server(servicer, server)
        meter_service_pb2_grpc.add_MeterServiceServicer_to_server(servicer, server)
        port = server.add_insecure_port(address)
        server.start()
        servers.append(server)
        return RunningUsage(servicer, f"127.0.0.1:{port}", server)

    yield start
    for server in servers:
        server.stop(None).wait(5)


@pytest.fixture
def service(database_url: str, redis_url: str) -> Iterator[UsageProcess]:
    """The usage service's server and worker."""
    service = UsageProcess(
        {
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_url,
            "METERSCOPE_USAGE_WORKER_ADDRESS": "127.0.0.1:0",
            "METERSCOPE_ALERTS_ADDRESS": "127.0.0.1:1",
            "METERSCOPE_ENVIRONMENT": "test",
            "LOG_LEVEL": "ERROR",
        }
    )
    service.start("work")
    service.start("serve", "--migrate")
    eventually(service.serves, seconds=60)
    yield service
    service.stop()
