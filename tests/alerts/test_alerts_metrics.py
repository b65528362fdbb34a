from datetime import timedelta
from typing import Any

from alerts_service import AlertsService
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from webhook_receiver import Answer, Receiver

from meterscope.alerts.v1 import alert_service_pb2 as alerts_pb
from services.alerts.__main__ import build_worker
from services.alerts.settings import Settings
from tests.eventually import eventually


def points(reader: InMemoryMetricReader) -> dict[str, dict[tuple[str, ...], Any]]:
    """Return all data points by instrument and label values (in the order of their names)."""
    found: dict[str, dict[tuple[str, ...], Any]] = {}
    data = reader.get_metrics_data()
    for resource in data.resource_metrics if data else ():
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                for point in metric.data.data_points:
                    labels = tuple(str(value) for _, value in sorted((point.attributes or {}).items()))
                    found.setdefault(metric.name, {})[labels] = point
    return found


def test_deliveries_and_open_alerts_are_measured(server: AlertsService, settings: Settings, receiver: Receiver) -> None:
    receiver.will_answer("/measured", Answer(500), Answer(204))
    hook = server.add_webhook(receiver.url("/measured"))
    alert = server.raise_signal(type="measured", severity=alerts_pb.SEVERITY_CRITICAL)
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    worker = build_worker(settings, lease=timedelta(seconds=1), meter=provider.get_meter("test"))
    assert points(reader)["billing.notifications"]["log", "dead"].value == 0
    worker.start()
    server.ended(alert, hook.id)
    server.ended(alert, "chn_log")
    eventually(lambda: ("webhook", "delivered") in points(reader).get("billing.notification.delivery", {}))
    eventually(lambda: "billing.alerts.firing" in points(reader))
    measured = points(reader)
    worker.stop()

    counted = measured["billing.notifications"]
    assert counted["webhook", "failed"].value == 1
    assert counted["webhook", "delivered"].value >= 1
    assert counted["log", "delivered"].value >= 1
    duration = measured["billing.notification.delivery"]["webhook", "delivered"]
    assert duration.count == counted["webhook", "delivered"].value
    assert 1 in duration.explicit_bounds
    assert measured["billing.alerts.firing"]["CRITICAL", "measured"].value == 1
    assert "billing.alerts.firing" not in points(reader), "without the lease nothing is shown"
    provider.shutdown()
