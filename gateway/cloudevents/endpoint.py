"""`POST /v1/events`: CloudEvents in any of HTTP's three modes go to IngestEvents, and each gets its answer."""

import asyncio
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

import grpc
import orjson
from google.protobuf.timestamp_pb2 import Timestamp
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from gateway import json_text, json_writer, problem
from gateway.backends import Backends
from gateway.cloudevents import binary
from gateway.cloudevents.mapping import BARE, Number, is_json, is_utf8, read_event, read_object
from gateway.contract import Contract
from gateway.errors import Refusal
from gateway.request_body import MAX_BODY_BYTES, check_encoding, read_any_body
from meterscope.usage.v1 import event_service_pb2 as pb
from services.kit.errors import AlreadyExists, FieldViolation, InvalidArgument, ServiceError

PATH: Final = "/v1/events"
EVENT_TYPE: Final = "application/cloudevents+json"
BATCH_TYPE: Final = "application/cloudevents-batch+json"
MOST_EVENTS: Final = 10_000

_TRANSPORT: Final = "cloudevents"
_FAMILY: Final = "application/cloudevents"
_FORMS: Final = f"{EVENT_TYPE}, {BATCH_TYPE}, or ce- headers with a body of application/json"
# Above this size the work is done in a thread, so that one caller's batch does not hold up the others.
_LARGE: Final = 64 * 1024
_CLIENT_GONE: Final = 499
# Counts of the answer by outcome.
_COUNTS: Final = {
    pb.OUTCOME_ACCEPTED: "accepted",
    pb.OUTCOME_DUPLICATE: "duplicate",
    pb.OUTCOME_CONFLICT: "conflict",
    pb.OUTCOME_QUARANTINED: "quarantined",
    pb.OUTCOME_REJECTED: "rejected",
}
# Where a CloudEvent has what the service calls otherwise.
_FIELDS: Final = {
    "customer_id": "subject",
    "customer_key": "subject",
    "trace_id": "traceparent",
    "quantities": BARE,
    "attributes": BARE,
}


@dataclass(frozen=True)
class Batch:
    """What a request holds.

    Attributes:
        request: the events that can be sent to the service.
        places: where each of them stood.
        refused: the others: what is wrong with each.
        undated: the places of events that do not say when they happened.
        is_batch: whether it came in batched mode; else it is one event, and what is wrong with it is a problem.
        prefix: what stands before an attribute's name where the caller wrote it.
    """

    request: pb.IngestEventsRequest
    places: list[int]
    refused: list[pb.EventResult]
    undated: frozenset[int]
    is_batch: bool
    prefix: str = ""


class CloudEvents:
    """The route."""

    def __init__(self, contract: Contract) -> None:
        self._method = contract.methods["meterscope.usage.v1.EventService.IngestEvents"]

    async def ingest(self, request: Request) -> Response:
        """Take events in."""
        try:
            return await self._ingest(request)
        except ClientDisconnect:
            return Response(status_code=_CLIENT_GONE)
        except Refusal as refusal:
            return problem.from_refusal(refusal).response(PATH)
        except ServiceError as error:
            return problem.from_service_error(error).response(PATH)
        except grpc.aio.AioRpcError as error:
            return problem.from_rpc_error(error, self._method.service, "").response(PATH)

    async def _ingest(self, request: Request) -> Response:
        body = await read_any_body(request)
        is_large = len(body) > _LARGE
        batch = await asyncio.to_thread(_read, request, body) if is_large else _read(request, body)
        if batch.request.ByteSize() > MAX_BODY_BYTES:
            raise Refusal(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "BODY_TOO_LARGE", "the events are too large; send them in parts"
            )
        backends: Backends = request.state.backends
        judged = pb.IngestEventsResponse()
        if batch.places:
            judged = await backends.call(self._method, batch.request, transport=_TRANSPORT)
        answer = _merged(batch, judged)
        if not batch.is_batch:
            _raise_refusal(answer.results[0])
        content = await asyncio.to_thread(_json, answer) if is_large else _json(answer)
        return Response(content, media_type="application/json", headers={"cache-control": "no-store"})


def _read(request: Request, body: bytes) -> Batch:
    """Read a request in the mode that its Content-Type says.

    Raises:
        Refusal: 415 for a type that is none of the three modes.
        InvalidArgument: no event of it could be read.
    """
    check_encoding(request, "JSON")
    content_type = request.headers.get("content-type", "")
    media_type, _, parameters = content_type.partition(";")
    media_type = media_type.strip().lower()
    now = Timestamp()
    now.GetCurrentTime()
    if media_type in {EVENT_TYPE, BATCH_TYPE} and is_utf8(parameters):
        value = json_text.parse(body, number=Number)
        if media_type == BATCH_TYPE:
            return _read_batch(value, now)
        event = read_object(value, now=now)
        return _single(event, is_dated=value.get("time") is not None, prefix="")
    attributes = {} if media_type.startswith(_FAMILY) else binary.read_headers(request.headers.raw)
    if not attributes or (body and not is_json(content_type)):
        raise Refusal(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "NOT_CLOUDEVENTS",
            f"the Content-Type is {content_type[:128]!r}; send {_FORMS}, in UTF-8",
            headers={"accept": f"{EVENT_TYPE}, {BATCH_TYPE}, application/json"},
        )
    data = json_text.parse(body, number=Number) if body else None
    event = read_event(attributes, data, now=now, prefix=binary.PREFIX)
    return _single(event, is_dated="time" in attributes, prefix=binary.PREFIX)


def _single(event: pb.Event, *, is_dated: bool, prefix: str) -> Batch:
    undated = frozenset[int]() if is_dated else frozenset({0})
    return Batch(pb.IngestEventsRequest(events=[event]), [0], [], undated, is_batch=False, prefix=prefix)


def _read_batch(value: Any, now: Timestamp) -> Batch:
    if not isinstance(value, list):
        raise InvalidArgument("the body is not a JSON array; send an array of CloudEvents", reason="WRONG_TYPE")
    if len(value) > MOST_EVENTS:
        raise InvalidArgument(
            f"the batch has {len(value):,} events; send at most {MOST_EVENTS:,} in a call", reason="BATCH_SIZE"
        )
    batch = Batch(
        pb.IngestEventsRequest(),
        [],
        [],
        frozenset(place for place, each in enumerate(value) if isinstance(each, dict) and each.get("time") is None),
        is_batch=True,
    )
    for place, each in enumerate(value):
        try:
            batch.request.events.append(read_object(each, now=now))
        except InvalidArgument as error:
            first = error.violations[0] if error.violations else FieldViolation("", error.message)
            name = each.get("id") if isinstance(each, dict) else None
            batch.refused.append(
                pb.EventResult(
                    index=place,
                    id=name.encode(errors="replace").decode() if isinstance(name, str) else "",
                    outcome=pb.OUTCOME_REJECTED,
                    reason=error.reason,
                    field=first.field,
                    message=first.description,
                )
            )
        else:
            batch.places.append(place)
    return batch


def _merged(batch: Batch, judged: pb.IngestEventsResponse) -> pb.IngestEventsResponse:
    """Return the results of all events in the order of the request, in the caller's words."""
    results = list(batch.refused)
    for place, result in zip(batch.places, judged.results, strict=True):
        result.index = place
        if result.field:
            result.field = _field(result.field, batch.prefix)
        if result.outcome == pb.OUTCOME_CONFLICT and place in batch.undated:
            result.message += "; it does not say when it happened, so that each try has another time: send `time`"
        results.append(result)
    answer = pb.IngestEventsResponse(results=sorted(results, key=lambda each: each.index))
    for result in results:
        name = _COUNTS[result.outcome]
        setattr(answer, name, getattr(answer, name) + 1)
    return answer


def _field(path: str, prefix: str) -> str:
    """Return where the caller wrote what the service names by `path`."""
    head, dot, rest = path.partition(".")
    named = _FIELDS.get(head, head)
    return f"{named}{dot}{rest}" if named == BARE else f"{prefix}{named}"


def _raise_refusal(result: pb.EventResult) -> None:
    """Raise what is wrong with a single event. One that is held in quarantine is taken."""
    kinds: dict[int, type[ServiceError]] = {
        pb.OUTCOME_REJECTED: InvalidArgument,
        pb.OUTCOME_CONFLICT: AlreadyExists,
    }
    kind = kinds.get(result.outcome)
    if kind is not None:
        raise kind(
            f"{result.field}: {result.message}" if result.field else result.message,
            reason=result.reason,
            violations=[FieldViolation(result.field, result.message)] if result.field else [],
        )


def _json(answer: pb.IngestEventsResponse) -> bytes:
    return orjson.dumps(json_writer.write(answer))
