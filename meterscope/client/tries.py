"""The tries of a batch: what is sent, whether and when it is sent again, and what its answer says."""

import random
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final, NoReturn

import grpc
import uuid_utils
from opentelemetry import propagate, trace
from opentelemetry.trace import Link, Span, StatusCode

from meterscope.client.errors import Undelivered
from meterscope.client.event import Encoded, Outcome, Result
from meterscope.client.status import asked_delay
from meterscope.usage.v1 import event_service_pb2 as pb

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


class Pause:
    """Until when the server asked to be left alone: it holds for all batches."""

    def __init__(self) -> None:
        self._until = 0.0

    def ask(self, seconds: float) -> None:
        """Note what the server asks for."""
        self._until = max(self._until, time.monotonic() + seconds)

    @property
    def left(self) -> float:
        """The seconds that it still wants."""
        return max(0.0, self._until - time.monotonic())


class Tries:
    """The tries of one batch: what is sent, and whether and when it is sent again."""

    def __init__(self, batch: Sequence[Encoded], span: Span, pause: Pause, retry_for: timedelta | None) -> None:
        self.batch = batch
        self.request_id = str(uuid_utils.uuid7())
        self.trace: dict[str, str] = {}
        propagate.inject(self.trace, trace.set_span_in_context(span))
        self.span = span
        self._pause = pause
        self._give_up = None if retry_for is None else time.monotonic() + retry_for.total_seconds()
        self._delay = _FIRST_DELAY

    def begin(self) -> float:
        """Return the seconds to wait before the first try.

        Raises:
            Undelivered: the server asked to be left alone for longer than there is time.
        """
        return self._checked(self._pause.left, "UNAVAILABLE: the server asked to be left alone", None)

    def again(self, error: grpc.RpcError) -> float:
        """Return the seconds to wait before the next try.

        Raises:
            Undelivered: there is no next one.
        """
        call: Any = error
        code, asked = call.code(), asked_delay(error)
        reason = f"{code.name}: {call.details()}"
        if code not in _RETRYABLE and not (code is grpc.StatusCode.RESOURCE_EXHAUSTED and asked > 0):
            self.end(reason, error, is_refused=True, code=code.name)
        self._pause.ask(asked)
        wait = self._checked(max(random.uniform(self._delay / 2, self._delay), asked), reason, error)
        self.span.add_event("retry", {"rpc.response.status_code": code.name, "meterscope.wait_seconds": wait})
        self._delay = min(self._delay * 2, _LONGEST_DELAY)
        return wait

    def end(self, reason: str, error: BaseException | None, *, is_refused: bool = False, code: str = "") -> NoReturn:
        """Give up.

        Raises:
            Undelivered: always.
        """
        self.span.set_status(StatusCode.ERROR, reason)
        raise Undelivered([item.event for item in self.batch], reason, is_refused=is_refused, code=code) from error

    def _checked(self, wait: float, reason: str, error: BaseException | None) -> float:
        if self._give_up is not None and wait > 0 and time.monotonic() + wait > self._give_up:
            self.end(reason, error)
        return wait


def attributes_of(method: str, batch: Sequence[Encoded]) -> dict[str, str | int]:
    """Return the attributes of a batch's span."""
    return {"rpc.system.name": "grpc", "rpc.method": method, "meterscope.batch.events": len(batch)}


def links_of(batch: Sequence[Encoded]) -> list[Link]:
    """Return links to the spans in which a batch's events were stated."""
    contexts = {item.link.span_id: item.link for item in batch if item.link}
    return [Link(context) for context in list(contexts.values())[:_MOST_LINKS]]


def unary(tries: Tries, metadata: tuple[tuple[str, str], ...]) -> tuple[pb.IngestEventsRequest, Any]:
    """Return a batch as a call of its own: the request and the metadata."""
    request = pb.IngestEventsRequest(events=[item.message for item in tries.batch], request_id=tries.request_id)
    return request, (*metadata, *tries.trace.items())


def streamed(tries: Tries) -> pb.StreamEventsRequest:
    """Return a batch as a request of a stream."""
    return pb.StreamEventsRequest(
        events=[item.message for item in tries.batch],
        request_id=tries.request_id,
        traceparent=tries.trace.get("traceparent", ""),
    )


def told(error: grpc.RpcError) -> str:
    """Return a failed call's status as a reason."""
    call: Any = error
    return f"{call.code().name}: {call.details()}"


def results_of(
    batch: Sequence[Encoded], response: pb.IngestEventsResponse | pb.StreamEventsResponse, span: Span
) -> list[Result]:
    """Return what became of a batch's events, and note it at its span.

    Raises:
        Undelivered: that is not what was answered.
    """
    for name in ("accepted", "duplicate", "conflict", "quarantined", "rejected"):
        if count := getattr(response, name):
            span.set_attribute(f"meterscope.batch.{name}", count)
    if len(response.results) != len(batch):
        reason = f"the server answered {len(response.results)} results to {len(batch)} events"
        raise Undelivered([item.event for item in batch], reason, is_refused=True)
    return [
        Result(item.event, Outcome(result.outcome), result.reason, result.field, result.message)
        for item, result in zip(batch, response.results, strict=True)
    ]
