"""The usage service as it runs in production, on embedded PostgreSQL (fsync on) and Valkey: server and worker processes."""

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import psutil
from grpc_health.v1 import health_pb2, health_pb2_grpc

from meterscope.usage.v1 import (
    limit_service_pb2,
    limit_service_pb2_grpc,
    meter_service_pb2,
    meter_service_pb2_grpc,
)
from services.kit.embedded import EmbeddedPostgres, start_postgres, start_valkey

EVENT_TYPE = "bench.request"
_CALLERS = 16
_PLAIN = (
    meter_service_pb2.Meter(id="requests", event_type=EVENT_TYPE, aggregation=meter_service_pb2.AGGREGATION_COUNT),
    meter_service_pb2.Meter(
        id="bytes", event_type=EVENT_TYPE, aggregation=meter_service_pb2.AGGREGATION_SUM, quantity="bytes"
    ),
)
_RICH = (
    meter_service_pb2.Meter(
        id="largest", event_type=EVENT_TYPE, aggregation=meter_service_pb2.AGGREGATION_MAX, quantity="bytes"
    ),
    meter_service_pb2.Meter(
        id="paths", event_type=EVENT_TYPE, aggregation=meter_service_pb2.AGGREGATION_UNIQUE, attribute="path"
    ),
    meter_service_pb2.Meter(
        id="by-status",
        event_type=EVENT_TYPE,
        aggregation=meter_service_pb2.AGGREGATION_COUNT,
        group_by=["status"],
    ),
)


@dataclass(frozen=True)
class UsageStack:
    """Where things are."""

    address: str
    postgres: EmbeddedPostgres
    database_url: str
    processes: dict[str, subprocess.Popen[bytes]]

    def processor_seconds(self) -> float:
        """Return what servers, worker and PostgreSQL have used so far."""
        return processor_seconds([*(process.pid for process in self.processes.values()), self.postgres.pid])


@contextmanager
def running(
    customers: int, *, servers: int = 1, rich: bool = False, environment: Mapping[str, str] | None = None
) -> Iterator[UsageStack]:
    """Run the usage service with meters and customers that have limits, named by key: `c0`, `c1` and so on.

    Args:
        customers: how many.
        servers: server processes on one port.
        rich: besides the two meters that count and sum, three that look at attributes or keep more than a sum.
        environment: further settings of its processes.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True)))
        postgres = start_postgres(folder / "postgres")
        stack.callback(postgres.stop)
        valkey = start_valkey(folder / "valkey")
        stack.callback(valkey.stop)
        address, worker = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
        database_url = postgres.url("usage", "usage")
        environ = {
            **os.environ,
            "USAGE_DATABASE_URL": database_url,
            "REDIS_URL": valkey.url(),
            "METERSCOPE_USAGE_ADDRESS": address,
            "METERSCOPE_USAGE_WORKER_ADDRESS": worker,
            "METERSCOPE_ALERTS_ADDRESS": f"127.0.0.1:{free_port()}",
            "LOG_LEVEL": "ERROR",
            **(environment or {}),
        }
        processes = {}
        for name, arguments in [
            *((f"server-{n}", ["serve", "--migrate"]) for n in range(servers)),
            ("worker", ["work"]),
        ]:
            process = subprocess.Popen([sys.executable, "-m", "services.usage", *arguments], env=environ)
            stack.callback(_end, process)
            processes[name] = process
            wait_until_serving(worker if name == "worker" else address)
        prepare(address, customers, rich=rich)
        yield UsageStack(address, postgres, database_url, processes)


def processor_seconds(pids: Iterable[int]) -> float:
    """Return what processes have used so far, their children, and those of these that ended, included."""
    spent = 0.0
    for pid in pids:
        process = psutil.Process(pid)
        for each in (process, *process.children(recursive=True)):
            times = each.cpu_times()
            spent += times.user + times.system
        ended = process.cpu_times()
        spent += ended.children_user + ended.children_system
    return spent


def prepare(address: str, customers: int, *, rich: bool = False) -> None:
    """Create meters, the rich ones too where asked for, and make customers known, with a limit each, as billing would."""
    with grpc.insecure_channel(address) as channel:
        meters = meter_service_pb2_grpc.MeterServiceStub(channel)
        for meter in (*_PLAIN, *(_RICH if rich else ())):
            meters.CreateMeter(meter_service_pb2.CreateMeterRequest(meter=meter))
    with ExitStack() as stack:
        # A connection for each caller: several server processes share connections, not calls.
        own = [("grpc.use_local_subchannel_pool", 1)]
        channels = [stack.enter_context(grpc.insecure_channel(address, options=own)) for _ in range(_CALLERS)]
        stubs = [limit_service_pb2_grpc.LimitServiceStub(each) for each in channels]

        def put(number: int) -> None:
            request = limit_service_pb2.PutEntitlementsRequest(
                customer_id=f"cus_{number:032x}",
                customer_keys=[f"c{number}"],
                revision=1,
                time_zone="UTC",
                has_plan=True,
                request_id=f"bench-{number}",
            )
            limit = request.limits.add(meter="requests", kind=limit_service_pb2.LIMIT_KIND_SOFT)
            limit.limit.value = str(10**12)
            stubs[number % _CALLERS].PutEntitlements(request)

        with ThreadPoolExecutor(_CALLERS) as callers:
            for _ in callers.map(put, range(customers)):
                pass


def wait_until_serving(address: str, seconds: float = 30) -> None:
    """Wait until a gRPC server says that it is healthy."""
    deadline = time.monotonic() + seconds
    while True:
        with grpc.insecure_channel(address) as channel:
            try:
                answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=1)
                if answer.status == health_pb2.HealthCheckResponse.SERVING:
                    return
            except grpc.RpcError as error:
                if error.code() not in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}:
                    raise
        if time.monotonic() > deadline:
            raise TimeoutError(f"{address} is not serving after {seconds} s")
        time.sleep(0.05)


def free_port() -> int:
    """Return a port that nobody holds now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
