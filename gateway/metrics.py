"""The gateway's instruments, declared once."""

from opentelemetry.metrics import Meter

from services.kit.interceptors import DURATION_BOUNDARIES


class HttpMetrics:
    """How many HTTP requests were answered, with what, and how fast."""

    def __init__(self, meter: Meter) -> None:
        self._standard = meter.create_histogram(
            "http.server.request.duration",
            unit="s",
            description="Duration of HTTP requests",
            explicit_bucket_boundaries_advisory=DURATION_BOUNDARIES,
        )
        self._requests = meter.create_counter("billing.http.requests", description="HTTP requests answered")
        self._duration = meter.create_histogram(
            "billing.http.request.duration",
            unit="s",
            description="Duration of HTTP requests",
            explicit_bucket_boundaries_advisory=DURATION_BOUNDARIES,
        )
        self._api = meter.create_counter("billing.api.requests", description="REST calls answered, by route")

    def record(self, method: str, route: str | None, status: int, seconds: float) -> None:
        """Count one answered request.

        Args:
            method: the HTTP method, `_OTHER` for one that is not known.
            route: the template, None where none matched.
            status: the HTTP status.
            seconds: from the request's head to the end of the answer.
        """
        standard: dict[str, str | int] = {
            "http.request.method": method,
            "http.response.status_code": status,
            "url.scheme": "http",
        }
        if route is not None:
            standard["http.route"] = route
        self._standard.record(seconds, standard)
        labels = {"method": method, "route": route or "unmatched", "status_code": str(status)}
        self._requests.add(1, labels)
        self._duration.record(seconds, labels)
        if route is not None and route.startswith("/v1/"):
            self._api.add(1, {"endpoint": route, "status_code": str(status)})
