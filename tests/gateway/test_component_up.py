"""Which services answer the gateway, as a gauge."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator

import pytest
from eventually import eventually
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from service_doubles import NAMES, ServiceDouble

from gateway.backends import Backends
from gateway.components import Components
from gateway.settings import Settings
from services.kit.settings import read


@pytest.fixture
def alerts() -> Iterator[ServiceDouble]:
    """An alerts service that a test may stop."""
    double = ServiceDouble("alerts")
    double.start()
    yield double
    double.stop()


@contextlib.contextmanager
def asking(settings: Settings) -> Iterator[InMemoryMetricReader]:
    """What the gateway would export, while it asks all the time."""
    reader = InMemoryMetricReader()
    meter = MeterProvider([reader]).get_meter("test")
    stop = threading.Event()

    async def ask() -> None:
        backends = Backends(settings)
        task = asyncio.create_task(Components(backends, every_seconds=0.05, meter=meter).run())
        await asyncio.to_thread(stop.wait)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await backends.close()

    thread = threading.Thread(target=asyncio.run, args=(ask(),))
    thread.start()
    try:
        yield reader
    finally:
        stop.set()
        thread.join()


def up(reader: InMemoryMetricReader) -> dict[str, int]:
    data = reader.get_metrics_data()
    return {
        str((point.attributes or {})["component"]): point.value  # type: ignore[union-attr]
        for resource in (data.resource_metrics if data else ())
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == "billing.component_up"
        for point in metric.data.data_points
    }


def test_a_service_is_up_until_it_stops(services: dict[str, ServiceDouble], alerts: ServiceDouble) -> None:
    addresses = {f"METERSCOPE_{name.upper()}_ADDRESS": double.address for name, double in services.items()}
    addresses["METERSCOPE_ALERTS_ADDRESS"] = alerts.address
    with asking(read(Settings, addresses)) as reader:
        eventually(lambda: up(reader) == dict.fromkeys(NAMES, 1))
        alerts.stop()
        eventually(lambda: up(reader) == {**dict.fromkeys(NAMES, 1), "alerts": 0})
    # A gateway that has stopped says nothing.
    assert up(reader) == {}
