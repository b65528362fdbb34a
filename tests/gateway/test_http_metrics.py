from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from gateway.metrics import HttpMetrics


@pytest.fixture
def reader() -> Iterator[InMemoryMetricReader]:
    reader = InMemoryMetricReader()
    yield reader
    reader.shutdown()


def points(reader: InMemoryMetricReader) -> dict[str, list[dict[str, Any]]]:
    data = reader.get_metrics_data()
    assert data is not None
    return {
        metric.name: [dict(point.attributes or {}) for point in metric.data.data_points]
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }


def test_a_rest_call_is_counted_by_route(reader: InMemoryMetricReader) -> None:
    HttpMetrics(MeterProvider([reader]).get_meter("test")).record("GET", "/v1/plans/{plan_id}", 404, 0.01)
    labels = {"method": "GET", "route": "/v1/plans/{plan_id}", "status_code": "404"}
    assert points(reader) == {
        "http.server.request.duration": [
            {
                "http.request.method": "GET",
                "http.response.status_code": 404,
                "url.scheme": "http",
                "http.route": "/v1/plans/{plan_id}",
            }
        ],
        "billing.http.requests": [labels],
        "billing.http.request.duration": [labels],
        "billing.api.requests": [{"endpoint": "/v1/plans/{plan_id}", "status_code": "404"}],
    }


def test_paths_that_match_nothing_share_one_label(reader: InMemoryMetricReader) -> None:
    metrics = HttpMetrics(MeterProvider([reader]).get_meter("test"))
    for _ in range(3):
        metrics.record("GET", None, 404, 0.01)
    found = points(reader)
    assert found["billing.http.requests"] == [{"method": "GET", "route": "unmatched", "status_code": "404"}]
    assert "billing.api.requests" not in found
