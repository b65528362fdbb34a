"""The usage service as processes of its own, for tests that kill it amid a stream."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from ports import free_ports

from meterscope.usage.v1 import (
    limit_service_pb2,
    limit_service_pb2_grpc,
    meter_service_pb2,
    meter_service_pb2_grpc,
    usage_service_pb2,
    usage_service_pb2_grpc,
)


class UsageProcess:
    """The server, that can be killed and started again at the same address, and whatever is started beside it."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.address = f"127.0.0.1:{free_ports()}"
        self._environ = {**os.environ, **environ, "METERSCOPE_USAGE_ADDRESS": self.address}
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "services.usage", *arguments]
        self._running.append(subprocess.Popen(command, env=self._environ))

    def kill(self) -> None:
        self._running[-1].send_signal(signal.SIGKILL)
        self._running[-1].wait(20)

    def serves(self) -> bool:
        with grpc.insecure_channel(self.address) as channel:
            try:
                health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=1)
            except grpc.RpcError:
                return False
        return health.status == health_pb2.HealthCheckResponse.SERVING

    def stop(self) -> None:
        for process in self._running:
            process.terminate()
        for process in self._running:
            process.wait(20)

    def prepare(self, customer: str) -> None:
        """Create the meter `n`, the sum of the quantity `n` of events `t`, and a customer."""
        with grpc.insecure_channel(self.address) as channel:
            meter = meter_service_pb2.Meter(
                id="n", event_type="t", aggregation=meter_service_pb2.AGGREGATION_SUM, quantity="n"
            )
            meter_service_pb2_grpc.MeterServiceStub(channel).CreateMeter(
                meter_service_pb2.CreateMeterRequest(meter=meter)
            )
            limit_service_pb2_grpc.LimitServiceStub(channel).PutEntitlements(
                limit_service_pb2.PutEntitlementsRequest(
                    customer_id=customer, revision=1, time_zone="UTC", has_plan=True, request_id="put"
                )
            )

    def total(self, customer: str) -> Decimal:
        """What the customer has used of `n`, all that is acknowledged included."""
        today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        request = usage_service_pb2.QueryUsageRequest(customer_id=customer, meter="n")
        request.start_time.FromDatetime(today - timedelta(days=1))
        request.end_time.FromDatetime(today + timedelta(days=2))
        with grpc.insecure_channel(self.address) as channel:
            usage = usage_service_pb2_grpc.UsageServiceStub(channel)
            return Decimal(usage.QueryUsage(request, timeout=10, wait_for_ready=True).total.value)
