"""Calls to the four services: one channel each, with deadline, client span, trace context and request id."""

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2
from opentelemetry import metrics, trace
from opentelemetry.trace import SpanKind, StatusCode

from gateway.contract import Method
from gateway.settings import Settings
from gateway.upload import Upload
from services.kit import logs, telemetry
from services.kit.channel import CHANNEL_OPTIONS, identified
from services.kit.interceptors import REQUEST_ID_HEADER, TRANSPORT_HEADER
from services.kit.metrics import RPC_CLIENT

_HEALTH_CHECK = "/grpc.health.v1.Health/Check"
_REST = "rest"


@dataclass(frozen=True)
class ServiceHealth:
    """What a service said of itself.

    Attributes:
        status: `SERVING`, `NOT_SERVING`, `UNKNOWN`, or `UNREACHABLE` where no answer came.
        milliseconds: how long the answer took.
    """

    status: str
    milliseconds: float = field(compare=False)

    @property
    def is_serving(self) -> bool:
        """Whether it can do its work."""
        return self.status == "SERVING"


class Backends:
    """The four services as the gateway sees them. Open it inside the event loop that uses it."""

    def __init__(self, settings: Settings) -> None:
        self._deadline = settings.deadline.total_seconds()
        self._stream_deadline = settings.stream_deadline.total_seconds()
        self._token = settings.kit.service_token
        self._channels = {
            service: grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)
            for service, address in settings.addresses.items()
        }
        self._addresses = settings.addresses
        self._uploads: dict[str, grpc.Channel] = {}
        self._tracer = trace.get_tracer("gateway")
        self._duration = RPC_CLIENT.build(metrics.get_meter("gateway"))

    @property
    def names(self) -> tuple[str, ...]:
        """The services' names."""
        return tuple(self._channels)

    async def call(
        self, method: Method, request: Message, *, seconds: float | None = None, transport: str = _REST
    ) -> Any:
        """Call a method and return its answer.

        Args:
            method: what to call.
            request: a message of its request type.
            seconds: the deadline; the setting's by default.
            transport: how the request reached the gateway, for the service's metrics.

        Raises:
            grpc.aio.AioRpcError: the call failed.
        """
        call = self._channels[method.service].unary_unary(
            method.path,
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.response.FromString,
        )
        with self._observed(method):
            return await call(
                identified(request), timeout=seconds or self._deadline, metadata=self._metadata(transport)
            )

    async def stream(self, method: Method, requests: AsyncIterator[Message]) -> Any:
        """Call a method that takes a stream, and return its answer. A request is fetched once the one before is sent.

        Raises:
            grpc.RpcError: the call failed; the rest of the requests is not fetched.
            Exception: what `requests` raised; the call is cancelled then.
        """
        stub = self._threaded(method.service).stream_unary(
            method.path,
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.response.FromString,
        )
        with self._observed(method):
            metadata = self._metadata(_REST)
            return await Upload(requests).run(
                lambda fetched: stub.future(fetched, timeout=self._stream_deadline, metadata=metadata)
            )

    async def read(self, method: Method, request: Message, *, seconds: float) -> list[Any]:
        """Call a method that answers a stream, and return its answers when all are there.

        Args:
            method: what to call.
            request: a message of its request type.
            seconds: the deadline, of the whole stream.

        Raises:
            grpc.aio.AioRpcError: the call failed.
        """
        stub = self._channels[method.service].unary_stream(
            method.path,
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.response.FromString,
        )
        with self._observed(method):
            return [answer async for answer in stub(request, timeout=seconds, metadata=self._metadata(_REST))]

    def _threaded(self, service: str) -> grpc.Channel:
        """Return grpcio's threaded channel to a service, opened when it is first needed."""
        if service not in self._uploads:
            self._uploads[service] = grpc.insecure_channel(self._addresses[service], options=CHANNEL_OPTIONS)
        return self._uploads[service]

    @contextmanager
    def _observed(self, method: Method) -> Iterator[None]:
        """Put a client span and a duration around a call."""
        name = method.path.lstrip("/")
        attributes = {"rpc.system.name": "grpc", "rpc.method": name}
        started = time.perf_counter()
        code = "OK"
        with self._tracer.start_as_current_span(
            name, kind=SpanKind.CLIENT, attributes=attributes, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield
            except grpc.RpcError as error:
                code = error.code().name
                span.set_status(StatusCode.ERROR, error.details() or code)
                raise
            finally:
                span.set_attribute("rpc.response.status_code", code)
                labels = {**attributes, "rpc.response.status_code": code}
                self._duration.record(time.perf_counter() - started, labels)

    async def health(self, service: str, *, seconds: float) -> ServiceHealth:
        """Ask a service for its health. Never raises: no answer within the time is `UNREACHABLE`."""
        check = self._channels[service].unary_unary(
            _HEALTH_CHECK,
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        started = time.perf_counter()
        try:
            answer = await check(health_pb2.HealthCheckRequest(), timeout=seconds, metadata=self._metadata(_REST))
            status = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
        except grpc.aio.AioRpcError:
            status = "UNREACHABLE"
        return ServiceHealth(status, round((time.perf_counter() - started) * 1000, 1))

    async def close(self) -> None:
        """Close the channels; running calls end with an error."""
        for channel in self._channels.values():
            await channel.close()
        for upload in self._uploads.values():
            upload.close()

    def _metadata(self, transport: str) -> tuple[tuple[str, str], ...]:
        metadata = [
            *telemetry.inject().items(),
            (REQUEST_ID_HEADER, logs.request_id.get()),
            (TRANSPORT_HEADER, transport),
        ]
        if self._token is not None:
            metadata.append(("authorization", f"Bearer {self._token}"))
        return tuple(metadata)
