"""Servers for the client's tests."""

from collections.abc import Callable, Iterator
from concurrent import futures

import grpc
import pytest
from fake_usage import Failure, FakeUsage, RunningUsage

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
