"""The gateway's instruments, declared once."""

from typing import Final

from opentelemetry.metrics import Meter

from services.kit.instruments import Counter, Histogram, Label
from services.kit.metrics import CALL_BOUNDARIES

_METHOD: Final = Label(
    "http.request.method",
    ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "_OTHER"),
)
_BY_ROUTE: Final = (Label("method", _METHOD.values), Label("route"), Label("status_code"))

STANDARD: Final = Histogram(
    "http.server.request.duration",
    "Duration of HTTP requests",
    unit="s",
    labels=(
        _METHOD,
        Label("http.route", optional=True),
        Label("http.response.status_code"),
        Label("url.scheme", ("http",)),
    ),
    boundaries=CALL_BOUNDARIES,
    alerts=(0.5, 1),
)
REQUESTS: Final = Counter(
    "billing.http.requests", "HTTP requests answered; the route is `unmatched` where there is none", labels=_BY_ROUTE
)
REQUEST_DURATION: Final = Histogram(
    "billing.http.request.duration",
    "Duration of HTTP requests",
    unit="s",
    labels=_BY_ROUTE,
    boundaries=CALL_BOUNDARIES,
    alerts=(0.5, 1),
)
API_REQUESTS: Final = Counter(
    "billing.api.requests",
    "REST calls answered, by the route's template",
    labels=(Label("endpoint"), Label("status_code")),
)


class HttpMetrics:
    """How many HTTP requests were answered, with what, and how fast."""

    def __init__(self, meter: Meter) -> None:
        self._standard = STANDARD.build(meter)
        self._requests = REQUESTS.build(meter)
        self._duration = REQUEST_DURATION.build(meter)
        self._api = API_REQUESTS.build(meter)

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
