"""What a webhook says: an event in the form of Standard Webhooks, with the alert as the REST API shows it."""

from datetime import UTC, datetime
from typing import Any

import orjson
from google.protobuf import json_format

from meterscope.alerts.v1 import alert_service_pb2

FIRING = "alert.firing"


def alert_json(alert: alert_service_pb2.Alert) -> dict[str, Any]:
    """Return an alert in the REST API's shape: snake_case names, enum values without their prefix."""
    shown: dict[str, Any] = json_format.MessageToDict(
        alert, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    shown["severity"] = shown["severity"].removeprefix("SEVERITY_")
    shown["state"] = shown["state"].removeprefix("ALERT_STATE_")
    return shown


def firing_payload(alert: alert_service_pb2.Alert, at: datetime) -> bytes:
    """Return the body of the webhook that tells of a new alert.

    Args:
        alert: the alert.
        at: when it became news; the same at every attempt.
    """
    timestamp = at.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return orjson.dumps({"type": FIRING, "timestamp": timestamp, "data": alert_json(alert)})
