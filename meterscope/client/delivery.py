"""Delivers one batch: sends it, with the same ids, until it is answered or the time for it is over."""

import random
import threading
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Final, cast

import grpc
import uuid_utils
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from grpc_status import rpc_status
from opentelemetry import propagate, trace
from opentelemetry.trace import Link, Span, SpanKind, StatusCode

from meterscope.client.errors import Undelivered
from meterscope.client.event import Encoded, Outcome, Result
from meterscope.usage.v1 import event_service_pb2 as pb
from meterscope.usage.v1 import event_service_pb2_grpc

METHOD: Final = "meterscope.usage.v1.EventService/IngestEvents"

# The outcome is not known, or the server asks for patience: the events' identities make another try safe.
_RETRYABLE: Final = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.ABORTED,
    }
)
_FIRST_DELAY: Final = 0.1
_LONGEST_DELAY: Final = 5.0
_MOST_LINKS: Final = 32


class Delivery:
    """Sends batches, from any thread.

    Args:
        channel: a channel to usage.
        token: sent as `authorization: Bearer`, if given.
        timeout: the deadline of each try.
        retry_for: how long a batch is tried before it counts as undelivered.
    """

    def __init__(self, channel: grpc.Channel, *, token: str | None, timeout: timedelta, retry_for: timedelta) -> None:
        self._stub = event_service_pb2_grpc.EventServiceStub(channel)
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()
        self._timeout = timeout.total_seconds()
        self._retry_for = retry_for.total_seconds()
        self._stopped = threading.Event()
        self._tracer = trace.get_tracer("meterscope.client")

    def send(self, batch: Sequence[Encoded]) -> list[Result]:
        """Send a batch and return what became of each event, in order.

        Raises:
            Undelivered: the server refused the batch as a whole, did not answer in time, or `stop` was called.
        """
        with self._tracer.start_as_current_span(
            METHOD,
            kind=SpanKind.CLIENT,
            attributes={"rpc.system.name": "grpc", "rpc.method": METHOD, "meterscope.batch.events": len(batch)},
            links=_links(batch),
            record_exception=False,
        ) as span:
            response = self._call(batch, span)
            for name in ("accepted", "duplicate", "conflict", "quarantined", "rejected"):
                if count := getattr(response, name):
                    span.set_attribute(f"meterscope.batch.{name}", count)
            return _results(batch, response)

    def stop(self) -> None:
        """Give up waiting for another try; batches under way become undelivered."""
        self._stopped.set()

    def _call(self, batch: Sequence[Encoded], span: Span) -> pb.IngestEventsResponse:
        request = pb.IngestEventsRequest(events=[item.message for item in batch], request_id=str(uuid_utils.uuid7()))
        carrier: dict[str, str] = {}
        propagate.inject(carrier)
        metadata = (*self._metadata, *carrier.items())
        give_up = time.monotonic() + self._retry_for
        delay = _FIRST_DELAY
        while True:
            try:
                return self._stub.IngestEvents(request, timeout=self._timeout, metadata=metadata)
            except grpc.RpcError as error:
                call = cast("grpc.Call", error)
                asked = _asked_delay(call)
                wait = max(random.uniform(delay / 2, delay), asked)
                final = _is_final(call.code(), asked) or time.monotonic() + wait > give_up
                if final or self._stopped.wait(wait):
                    reason = f"{call.code().name}: {call.details()}"
                    span.set_status(StatusCode.ERROR, reason)
                    raise Undelivered([item.event for item in batch], reason) from error
                span.add_event("retry", {"rpc.response.status_code": call.code().name, "meterscope.wait_seconds": wait})
                delay = min(delay * 2, _LONGEST_DELAY)


def _is_final(code: grpc.StatusCode, asked_delay: float) -> bool:
    return code not in _RETRYABLE and not (code is grpc.StatusCode.RESOURCE_EXHAUSTED and asked_delay > 0)


def _asked_delay(call: grpc.Call) -> float:
    """Return the seconds that the server asks to wait (google.rpc.RetryInfo), 0 if it does not."""
    status = rpc_status.from_call(call)
    for detail in status.details if status else ():
        info = RetryInfo()
        if detail.Unpack(info):
            delay: Duration = info.retry_delay
            return max(0.0, delay.seconds + delay.nanos / 1e9)
    return 0.0


def _links(batch: Sequence[Encoded]) -> list[Link]:
    contexts = {item.link.span_id: item.link for item in batch if item.link}
    return [Link(context) for context in list(contexts.values())[:_MOST_LINKS]]


def _results(batch: Sequence[Encoded], response: pb.IngestEventsResponse) -> list[Result]:
    if len(response.results) != len(batch):
        reason = f"the server answered {len(response.results)} results to {len(batch)} events"
        raise Undelivered([item.event for item in batch], reason)
    return [
        Result(item.event, Outcome(result.outcome), result.reason, result.field, result.message)
        for item, result in zip(batch, response.results, strict=True)
    ]
