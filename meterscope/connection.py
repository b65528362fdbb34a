"""Connections to the services for commands: channels with deadlines, and the trace context on each call."""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import grpc
from opentelemetry import propagate, trace
from opentelemetry.trace import SpanKind, StatusCode

# grpcio by itself waits up to 2 minutes before it connects again.
CHANNEL_OPTIONS: Final = (
    ("grpc.max_receive_message_length", 32 << 20),
    ("grpc.max_send_message_length", 32 << 20),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)
DEADLINE_SECONDS: Final = 10.0


class _Details(NamedTuple):
    method: str
    timeout: float | None
    metadata: Any
    credentials: Any
    wait_for_ready: bool | None
    compression: Any


class _Outgoing(grpc.UnaryUnaryClientInterceptor, grpc.StreamUnaryClientInterceptor):
    def __init__(self, token: str | None) -> None:
        self._authorization = (("authorization", f"Bearer {token}"),) if token else ()
        self._tracer = trace.get_tracer("meterscope.connection")

    def intercept_unary_unary(
        self,
        continuation: Callable[[Any, Any], Any],
        client_call_details: grpc.ClientCallDetails,
        request: Any,
    ) -> Any:
        return self._call(continuation, client_call_details, request)

    def intercept_stream_unary(
        self,
        continuation: Callable[[Any, Any], Any],
        client_call_details: grpc.ClientCallDetails,
        request_iterator: Any,
    ) -> Any:
        return self._call(continuation, client_call_details, request_iterator)

    def _call(self, continuation: Callable[[Any, Any], Any], given: grpc.ClientCallDetails, request: Any) -> Any:
        name = given.method.lstrip("/")
        attributes = {"rpc.system.name": "grpc", "rpc.method": name}
        with self._tracer.start_as_current_span(name, kind=SpanKind.CLIENT, attributes=attributes) as span:
            carrier: dict[str, str] = {}
            propagate.inject(carrier)
            details = _Details(
                given.method,
                DEADLINE_SECONDS if given.timeout is None else given.timeout,
                [*(given.metadata or ()), *self._authorization, *carrier.items()],
                given.credentials,
                # A service that restarts is waited for, within the deadline.
                wait_for_ready=True,
                compression=given.compression,
            )
            call = continuation(details, request)
            if call.code() is not grpc.StatusCode.OK:
                span.set_status(StatusCode.ERROR, f"{call.code().name}: {call.details()}")
            return call


def open_channel(address: str, *, token: str | None = None) -> grpc.Channel:
    """Open a channel to host:port. Calls wait for the server and end after 10 s, or after their own `timeout`."""
    return grpc.intercept_channel(grpc.insecure_channel(address, options=CHANNEL_OPTIONS), _Outgoing(token))
