"""Points of metrics as a test wants them."""

from collections.abc import Mapping
from typing import Any

from opentelemetry.sdk.metrics.export import MetricsData


def points(data: MetricsData | None, name: str, attributes: Mapping[str, str]) -> list[Any]:
    """Return the points of an instrument that have these attributes, among others."""
    return [
        point
        for resource in (data.resource_metrics if data else ())
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == name
        for point in metric.data.data_points
        if attributes.items() <= dict(point.attributes or {}).items()
    ]
