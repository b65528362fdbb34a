"""A worker in this process whose metrics can be read: OpenTelemetry keeps only the first gauge of a name in a process."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, NumberDataPoint

from services.usage.__main__ import build_worker
from services.usage.settings import Settings


@contextmanager
def measured_worker(settings: Settings) -> Iterator[InMemoryMetricReader]:
    """Run a worker, and give what reads its metrics."""
    reader = InMemoryMetricReader()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("opentelemetry.metrics.get_meter", MeterProvider([reader]).get_meter)
        worker = build_worker(settings, lease=timedelta(seconds=1))
    worker.start()
    yield reader
    worker.stop()


def points(reader: InMemoryMetricReader, name: str) -> list[tuple[dict[str, object], float]]:
    """Return a metric's points as (attributes, value)."""
    data = reader.get_metrics_data()
    return [
        (dict(point.attributes or {}), float(point.value))
        for resource in (data.resource_metrics if data else ())
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == name
        for point in metric.data.data_points
        if isinstance(point, NumberDataPoint)
    ]
