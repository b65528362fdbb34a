"""Channels to other services: retries, round-robin, keepalive, and on each call the token, trace context and request id."""

import time
import uuid
from collections.abc import Callable
from functools import cache
from typing import Any, Final, NamedTuple

import grpc
import orjson
from google.api import field_behavior_pb2
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message
from opentelemetry import metrics, trace
from opentelemetry.trace import SpanKind, StatusCode

from services.kit import logs, telemetry
from services.kit.config import KitSettings
from services.kit.interceptors import REQUEST_ID_HEADER
from services.kit.metrics import RPC_CLIENT
from services.kit.server import MAX_MESSAGE_BYTES

DEFAULT_DEADLINE_SECONDS: Final = 10.0

# UNAVAILABLE promises that nothing was acknowledged, not that nothing was done. Sending again is safe all the same: each
# method that changes something takes an identity of its own, or a request_id, which `identified` gives where none was.
_SERVICE_CONFIG: Final = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {"name": [{"service": "grpc.health.v1.Health"}]},  # who asks for health wants to know now
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.1s",
                "maxBackoff": "2s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        },
    ],
}
CHANNEL_OPTIONS: Final = (
    ("grpc.service_config", orjson.dumps(_SERVICE_CONFIG).decode()),
    ("grpc.enable_retries", 1),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)


class _Details(NamedTuple):
    method: str
    timeout: float | None
    metadata: Any
    credentials: Any
    wait_for_ready: bool | None
    compression: Any


class Outgoing(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """Gives each call a client span, the trace context, the request id and the service token.

    Calls of one request and one answer get a deadline as well. How long a stream takes, only its caller knows.
    """

    def __init__(self, token: str | None) -> None:
        self._token = token
        self._tracer = trace.get_tracer("services.kit")
        self._duration = RPC_CLIENT.build(metrics.get_meter("services.kit"))

    def intercept_unary_unary(
        self,
        continuation: Callable[[Any, Any], Any],
        client_call_details: grpc.ClientCallDetails,
        request: Any,
    ) -> Any:
        """Make the call."""
        return self._call(continuation, client_call_details, identified(request), DEFAULT_DEADLINE_SECONDS)

    def intercept_unary_stream(
        self,
        continuation: Callable[[Any, Any], Any],
        client_call_details: grpc.ClientCallDetails,
        request: Any,
    ) -> Any:
        """Make a call that is answered by a stream."""
        return self._call(continuation, client_call_details, identified(request), None)

    def intercept_stream_unary(
        self,
        continuation: Callable[[Any, Any], Any],
        client_call_details: grpc.ClientCallDetails,
        request_iterator: Any,
    ) -> Any:
        """Make a call that sends a stream."""
        return self._call(continuation, client_call_details, request_iterator, None)

    def intercept_stream_stream(
        self,
        continuation: Callable[[Any, Any], Any],
        client_call_details: grpc.ClientCallDetails,
        request_iterator: Any,
    ) -> Any:
        """Make a call that streams both ways."""
        return self._call(continuation, client_call_details, request_iterator, None)

    def _call(
        self,
        continuation: Callable[[Any, Any], Any],
        given: grpc.ClientCallDetails,
        request: Any,
        deadline: float | None,
    ) -> Any:
        name = given.method.lstrip("/")
        attributes = {"rpc.system.name": "grpc", "rpc.method": name}
        span = self._tracer.start_span(name, kind=SpanKind.CLIENT, attributes=attributes)
        with trace.use_span(span, end_on_exit=False):
            details = self._details(given, deadline)
            started = time.perf_counter()
            call = continuation(details, request)

        def end(done: Any) -> None:
            code = done.code().name
            if code != "OK":
                span.set_status(StatusCode.ERROR, done.details() or code)
            span.set_attribute("rpc.response.status_code", code)
            span.end()
            self._duration.record(time.perf_counter() - started, {**attributes, "rpc.response.status_code": code})

        call.add_done_callback(end)
        return call

    def _details(self, given: grpc.ClientCallDetails, deadline: float | None) -> _Details:
        metadata = [*(given.metadata or ()), *telemetry.inject().items()]
        if not any(key == REQUEST_ID_HEADER for key, _ in metadata):
            metadata.append((REQUEST_ID_HEADER, logs.request_id.get() or uuid.uuid4().hex))
        if self._token is not None:
            metadata.append(("authorization", f"Bearer {self._token}"))
        timeout = given.timeout if given.timeout is not None else deadline
        return _Details(given.method, timeout, metadata, given.credentials, given.wait_for_ready, given.compression)


def identified(request: Any) -> Any:
    """Return a request that may be sent several times: with a request_id, if its message has one that is empty.

    The request itself stays as it is: used for another call it is another request. A request_id that the contract
    demands is the caller's to choose, who may send it again later: without one the service refuses the call.
    """
    is_known = isinstance(request, Message) and _may_lack_id(request.DESCRIPTOR)
    if not is_known or request.request_id:
        return request
    copy = type(request)()
    copy.CopyFrom(request)
    copy.request_id = str(uuid.uuid4())
    return copy


@cache
def _may_lack_id(descriptor: Descriptor) -> bool:
    field = descriptor.fields_by_name.get("request_id")
    if field is None:
        return False
    behaviours = field.GetOptions().Extensions[field_behavior_pb2.field_behavior]
    return field_behavior_pb2.REQUIRED not in behaviours


def open_channel(address: str, settings: KitSettings) -> grpc.Channel:
    """Open a channel to host:port.

    Calls without a timeout get 10 s, unless they are streams; UNAVAILABLE is tried again up to four times.
    """
    return grpc.intercept_channel(
        grpc.insecure_channel(address, options=CHANNEL_OPTIONS), Outgoing(settings.service_token)
    )
