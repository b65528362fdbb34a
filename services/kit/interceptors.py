"""What every call to a server passes through: decoding, request id, authentication, trace, deadline, error translation.

One interceptor does it all: each layer of grpcio interceptors costs a call some 20 µs.
"""

import hmac
import itertools
import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, cast

import grpc
from opentelemetry import context as otel_context
from opentelemetry import metrics, trace
from opentelemetry.trace import SpanKind, StatusCode

from services.kit import logs, telemetry
from services.kit.errors import InvalidArgument, ServiceError, Unauthenticated
from services.kit.exemplars import keep_if_worse
from services.kit.metrics import AUTH_FAILURES, RPC_SERVER
from services.kit.status import nul_field, to_service_error, to_status
from services.kit.streams import Cancelled, Streams

REQUEST_ID_HEADER: Final = "x-request-id"
# How a request reached us, where it was not by gRPC: the gateway says so.
TRANSPORT_HEADER: Final = "x-meterscope-transport"
MAX_REQUEST_ID: Final = 128
_QUIET: Final = ("/grpc.health.v1.Health/", "/grpc.reflection.")
# Telemetry of telemetry: every process sends every few seconds.
_UNTRACED: Final = "/opentelemetry.proto.collector."
_MOMENT: Final = 0.05
_FAULTS: Final = {"INTERNAL", "UNAVAILABLE"}

_log = logging.getLogger(__name__)

# In quotes: at run time grpcio's class takes no parameters.
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any] | None"
# Checks a call's metadata; returns who calls, or raises Unauthenticated.
Authenticate = Callable[[Mapping[str, str]], str]

principal: ContextVar[str] = ContextVar("principal", default="")
# As the caller put it: any text, empty for gRPC.
transport: ContextVar[str] = ContextVar("transport", default="")


@dataclass(frozen=True)
class Undecodable:
    """Stands for a request whose bytes are no message: grpcio alone would answer INTERNAL."""

    message: str


def service_token(token: str | None) -> Authenticate:
    """Return the check of the token that services share; without one every caller passes (loopback only)."""

    def check(metadata: Mapping[str, str]) -> str:
        if token is None:
            return "anonymous"
        given = metadata.get("authorization", "")
        if not hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
            raise Unauthenticated(
                "send the service token as metadata `authorization: Bearer …`", reason="BAD_SERVICE_TOKEN"
            )
        return "service"

    return check


class Entry(grpc.ServerInterceptor):
    """The interceptor of every server."""

    def __init__(self, authenticate: Authenticate, streams: Streams, methods: Sequence[str]) -> None:
        """Prepare.

        Args:
            authenticate: who may call.
            streams: looks after those that stand still.
            methods: those of the server, as `package.Service/Method`: their refusals are counted from 0.
        """
        self._authenticate = authenticate
        self._streams = streams
        self._tracer = trace.get_tracer("services.kit")
        self._untraced = trace.NoOpTracer()
        meter = metrics.get_meter("services.kit")
        self._duration = RPC_SERVER.build(meter)
        self._refused = AUTH_FAILURES.build(meter)
        for method in methods:
            AUTH_FAILURES.start(self._refused, {"route": method})

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Handler],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """Wrap the method's handler."""
        handler = continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or method.startswith(_QUIET):
            return handler
        metadata = {key: value for key, value in handler_call_details.invocation_metadata if isinstance(value, str)}
        if handler.unary_unary is not None:
            return grpc.unary_unary_rpc_method_handler(
                self._unary(handler.unary_unary, method, metadata),
                request_deserializer=_tolerant(handler.request_deserializer),
                response_serializer=handler.response_serializer,
            )
        if handler.unary_stream is not None:
            return grpc.unary_stream_rpc_method_handler(
                self._stream(handler.unary_stream, method, metadata),
                request_deserializer=_tolerant(handler.request_deserializer),
                response_serializer=handler.response_serializer,
            )
        if handler.stream_unary is not None:
            return grpc.stream_unary_rpc_method_handler(
                self._incoming(handler.stream_unary, method, metadata),
                request_deserializer=_tolerant(handler.request_deserializer),
                response_serializer=handler.response_serializer,
            )
        assert handler.stream_stream is not None  # noqa: S101 - the last of the four kinds
        return grpc.stream_stream_rpc_method_handler(
            self._both(handler.stream_stream, method, metadata),
            request_deserializer=_tolerant(handler.request_deserializer),
            response_serializer=handler.response_serializer,
        )

    def _unary(self, behaviour: Callable[..., Any], method: str, metadata: Mapping[str, str]) -> Callable[..., Any]:
        def call(request: Any, context: grpc.ServicerContext) -> Any:
            with self._call(method, metadata, request, context):
                return behaviour(request, context)

        return call

    def _stream(self, behaviour: Callable[..., Any], method: str, metadata: Mapping[str, str]) -> Callable[..., Any]:
        def call(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            with self._call(method, metadata, request, context):
                yield from behaviour(request, context)

        return call

    def _incoming(self, behaviour: Callable[..., Any], method: str, metadata: Mapping[str, str]) -> Callable[..., Any]:
        def call(requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
            with (
                self._call(method, metadata, None, context),
                self._streams.opened(_decoded(requests, context), context) as stream,
            ):
                return behaviour(stream, context)

        return call

    def _both(self, behaviour: Callable[..., Any], method: str, metadata: Mapping[str, str]) -> Callable[..., Any]:
        def call(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
            with (
                self._call(method, metadata, None, context),
                self._streams.opened(_decoded(requests, context), context, is_endless=True) as stream,
            ):
                yield from stream.sent(behaviour(stream, context))

        return call

    @contextmanager
    def _call(
        self, method: str, metadata: Mapping[str, str], request: Any, context: grpc.ServicerContext
    ) -> Iterator[None]:
        """Everything around one call. Aborts it with the translated error, if there is one."""
        started = time.perf_counter()
        request_id = metadata.get(REQUEST_ID_HEADER, "")[:MAX_REQUEST_ID] or uuid.uuid4().hex
        context.set_trailing_metadata(((REQUEST_ID_HEADER, request_id),))
        id_token = logs.request_id.set(request_id)
        transport_token = transport.set(metadata.get(TRANSPORT_HEADER, ""))
        attributes = {"rpc.system.name": "grpc", "rpc.method": method[1:]}
        caller = telemetry.extract(metadata)
        tracer = self._untraced if method.startswith(_UNTRACED) else self._tracer
        # Not by start_as_current_span: its three generators cost a call 5 µs.
        span = tracer.start_span(method[1:], caller, SpanKind.SERVER, attributes)
        context_token = otel_context.attach(trace.set_span_in_context(span, caller))
        error: ServiceError | None = None
        code = "OK"
        try:
            principal.set(self._authenticate(metadata))
            _check(request, context)
            yield
        except GeneratorExit:
            # Whoever took the answers is gone.
            code = Cancelled.status
            raise
        except Exception as caught:  # noqa: BLE001 - the one place where errors become statuses
            error = _translate(caught, method, request)
            if isinstance(error, Unauthenticated):
                self._refused.add(1, {"route": method[1:]})
            span.set_attribute("error.type", error.reason)
            if error.status in _FAULTS:
                span.set_status(StatusCode.ERROR, error.message)
                span.record_exception(caught)
            code = error.status
        finally:
            span.set_attribute("rpc.response.status_code", code)
            # Within the span: where it is kept, the duration gets an exemplar that leads to it.
            attributes["rpc.response.status_code"] = code
            seconds = time.perf_counter() - started
            keep_if_worse(span, seconds, is_fault=code in _FAULTS)
            self._duration.record(seconds, attributes)
            span.end()
            otel_context.detach(context_token)
            transport.reset(transport_token)
            logs.request_id.reset(id_token)
        if error is not None:
            context.abort_with_status(to_status(error))


def _check(request: Any, context: grpc.ServicerContext) -> None:
    if isinstance(request, Undecodable):
        raise InvalidArgument(request.message, reason="UNDECODABLE")
    # None without a deadline, which the type stubs leave out.
    remaining = cast("float | None", context.time_remaining())
    if remaining is not None and remaining <= 0:
        raise DeadlineExceeded("the call's deadline passed before its turn came; nothing was done")


def _decoded(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
    """Yield a stream's requests.

    Raises:
        InvalidArgument: the bytes of one are no message.
        Cancelled: the caller is gone before the end.
    """
    for position in itertools.count():
        try:
            request = next(requests)
        except StopIteration:
            if _is_broken_off(context):
                raise Cancelled("the caller broke the stream off") from None
            return
        except grpc.RpcError:
            raise Cancelled("the caller broke the stream off") from None
        if isinstance(request, Undecodable):
            raise InvalidArgument(
                f"request {position} of the stream, from 0: {request.message}",
                reason="UNDECODABLE",
                metadata={"position": str(position)},
            )
        yield request


class DeadlineExceeded(ServiceError):
    """The caller has given up already."""

    status = "DEADLINE_EXCEEDED"
    reason = "DEADLINE_EXCEEDED"


def _is_broken_off(context: grpc.ServicerContext) -> bool:
    """Whether a stream that has ended was cancelled: grpcio may say so a moment later than that nothing more comes.

    Half of a file would be taken for the whole otherwise.
    """
    over = threading.Event()
    return not context.add_callback(over.set) or over.wait(_MOMENT)


def _translate(caught: Exception, method: str, request: object) -> ServiceError:
    if field := nul_field(caught, request):
        return InvalidArgument.at(field, "holds a NUL character; leave it out", reason="NUL")
    error = to_service_error(caught)
    if error is None:
        _log.error("call failed", exc_info=caught, extra={"rpc_method": method})
        return ServiceError("something went wrong on our side; the request id names it in the logs")
    if error.status in _FAULTS:
        _log.warning("call refused: %s", error.message, exc_info=caught, extra={"rpc_method": method})
    return error


def _tolerant(deserialize: Callable[[bytes], Any] | None) -> Callable[[bytes], Any]:
    def decode(data: bytes) -> Any:
        if deserialize is None:
            return data
        try:
            return deserialize(data)
        except Exception as error:  # noqa: BLE001 - whatever the decoder raises, the bytes are the caller's
            return Undecodable(f"the request's bytes are no such message ({error}); strings must be UTF-8")

    return decode
