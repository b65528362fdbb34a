"""Around every HTTP request: server span, request id, metrics, and the last net for faults of ours."""

import logging
import re
import time
import uuid
from collections.abc import Mapping
from typing import Any, Final

from opentelemetry import context as otel_context
from opentelemetry import metrics, trace
from opentelemetry.trace import Span, SpanKind, StatusCode
from starlette.datastructures import Headers, MutableHeaders
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway import problem
from gateway.metrics import HttpMetrics
from services.kit import logs, telemetry
from services.kit.exemplars import keep_if_worse
from services.kit.interceptors import REQUEST_ID_HEADER

ROUTE: Final = "gateway.route"  # where a handler leaves its template in the ASGI scope
_METHODS: Final = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"}
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
_CONTEXT_HEADERS: Final = ("traceparent", "tracestate", "baggage")
_SERVER_FAULT: Final = 500

_log = logging.getLogger(__name__)


class Observed:
    """ASGI middleware, the outermost one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._tracer = trace.get_tracer("gateway")
        self._metrics = HttpMetrics(metrics.get_meter("gateway"))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request within its span."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get(REQUEST_ID_HEADER, "")
        id_token = logs.request_id.set(given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex)
        context_token = otel_context.attach(telemetry.extract(_context_headers(headers)))
        method = scope["method"] if scope["method"] in _METHODS else "_OTHER"
        try:
            with self._tracer.start_as_current_span(
                method, kind=SpanKind.SERVER, attributes=_request_attributes(scope, headers, method)
            ) as span:
                await self._handle(_Exchange(scope, receive, send), method, span)
        finally:
            otel_context.detach(context_token)
            logs.request_id.reset(id_token)

    async def _handle(self, exchange: "_Exchange", method: str, span: Span) -> None:
        started = time.perf_counter()
        try:
            await self._app(exchange.scope, exchange.receive, exchange.send)
        except Exception as error:
            _log.exception("request failed", extra={"url_path": exchange.scope["path"]})
            span.record_exception(error)
            if exchange.status is not None:
                raise
            answer = problem.internal().response(exchange.scope["path"])
            await answer(exchange.scope, exchange.receive, exchange.send)
        status = exchange.status or _SERVER_FAULT
        route = _route(exchange.scope)
        if route is not None:
            span.update_name(f"{method} {route}")
            span.set_attribute("http.route", route)
        span.set_attribute("http.response.status_code", status)
        if status >= _SERVER_FAULT:
            _log.warning("answered %d", status, extra={"http_method": method, "http_route": route})
            span.set_attribute("error.type", str(status))
            span.set_status(StatusCode.ERROR)
        seconds = time.perf_counter() - started
        keep_if_worse(span, seconds, is_fault=status >= _SERVER_FAULT)
        self._metrics.record(method, route, status, seconds)


class _Exchange:
    """One request's ASGI callables; remembers the status and puts the request id on the answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.receive = receive
        self.status: int | None = None
        self._send = send

    async def send(self, message: Message) -> None:
        """Send a part of the answer."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            MutableHeaders(raw=message.setdefault("headers", []))[REQUEST_ID_HEADER] = logs.request_id.get()
        await self._send(message)


def _route(scope: Mapping[str, Any]) -> str | None:
    page = scope.get("route")
    return page.path if isinstance(page, Route) else scope.get(ROUTE)


def _context_headers(headers: Headers) -> dict[str, str]:
    return {name: headers[name] for name in _CONTEXT_HEADERS if name in headers}


def _request_attributes(scope: Scope, headers: Headers, method: str) -> dict[str, str | int]:
    attributes: dict[str, str | int] = {
        "http.request.method": method,
        "url.path": scope["path"],
        "url.scheme": scope["scheme"],
        "network.protocol.version": scope["http_version"],
    }
    if scope.get("client"):
        attributes["client.address"] = scope["client"][0]
    if scope.get("server"):
        attributes["server.address"], attributes["server.port"] = scope["server"]
    if "user-agent" in headers:
        attributes["user_agent.original"] = headers["user-agent"]
    return attributes
