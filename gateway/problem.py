"""Errors as RFC 9457 `application/problem+json`: from the gateway's own refusals and from gRPC statuses."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final, cast

import grpc
import orjson
from google.rpc import error_details_pb2, status_pb2
from starlette.responses import Response

from gateway.errors import Refusal
from services.kit import logs, telemetry
from services.kit.errors import FieldViolation, ServiceError

# google/rpc/code.proto names the HTTP status of each code.
HTTP_STATUSES: Final[Mapping[str, int]] = {
    "CANCELLED": 499,
    "UNKNOWN": 500,
    "INVALID_ARGUMENT": 400,
    "DEADLINE_EXCEEDED": 504,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "PERMISSION_DENIED": 403,
    "UNAUTHENTICATED": 401,
    "RESOURCE_EXHAUSTED": 429,
    "FAILED_PRECONDITION": 400,
    "ABORTED": 409,
    "OUT_OF_RANGE": 400,
    "UNIMPLEMENTED": 501,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
    "DATA_LOSS": 500,
}
_RETRY_AFTER_SECONDS: Final = 1
# Statuses that grpcio makes up itself, as code, reason and words for the caller: its own words name addresses, attempts
# and options, and an answer above the size limit would be told as too many requests.
_OF_GRPC: Final[Mapping[str, tuple[str, str, str]]] = {
    "UNAVAILABLE": (
        "UNAVAILABLE",
        "SERVICE_UNAVAILABLE",
        "the {service} service is away; nothing was acknowledged, send the request again",
    ),
    "DEADLINE_EXCEEDED": (
        "DEADLINE_EXCEEDED",
        "DEADLINE_EXCEEDED",
        "the {service} service did not answer in time; whether the request took effect is not known",
    ),
    "RESOURCE_EXHAUSTED": (
        "OUT_OF_RANGE",
        "ANSWER_TOO_LARGE",
        "the answer of the {service} service is too large; ask for a smaller page",
    ),
    "UNIMPLEMENTED": (
        "UNIMPLEMENTED",
        "UNIMPLEMENTED",
        "the {service} service does not have this method: it is of another version",
    ),
}


@dataclass(frozen=True)
class Problem:
    """One problem, before it is written.

    Attributes:
        status: the HTTP status.
        title: the same for every problem of its kind.
        reason: an UPPER_SNAKE_CASE word for programs.
        detail: what was wrong this time and what to do.
        errors: the fields at fault.
        metadata: further facts for programs, from `google.rpc.ErrorInfo`.
        headers: headers of the answer.
    """

    status: int
    title: str
    reason: str
    detail: str
    errors: Sequence[FieldViolation] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)

    def response(self, instance: str) -> Response:
        """Return the answer. `instance` is the path that was asked."""
        content: dict[str, Any] = {
            "type": f"urn:problem-type:meterscope:{self.reason.lower().replace('_', '-')}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "instance": instance,
            "reason": self.reason,
            "errors": [{"field": each.field, "message": each.description} for each in self.errors],
            "request_id": logs.request_id.get(),
            "trace_id": telemetry.current_trace_id(),
        }
        if self.metadata:
            content["metadata"] = dict(self.metadata)
        return Response(
            orjson.dumps(content),
            status_code=self.status,
            headers={"cache-control": "no-store", **self.headers},
            media_type="application/problem+json",
        )


def from_refusal(refusal: Refusal) -> Problem:
    """Translate a refusal of the gateway."""
    return Problem(refusal.status, refusal.status.phrase, refusal.reason, refusal.detail, headers=refusal.headers)


def from_service_error(error: ServiceError) -> Problem:
    """Translate what the gateway found wrong with a request in the services' terms."""
    return Problem(HTTP_STATUSES[error.status], _title(error.status), error.reason, error.message, error.violations)


def from_rpc_error(error: grpc.RpcError, service: str, body_field: str) -> Problem:
    """Translate a failed call.

    Args:
        error: what the call raised.
        service: the service that was asked, such as `billing`.
        body_field: the field that the HTTP body stood for: callers do not know it, so paths lose it.
    """
    code = error.code().name
    info, violations, retry_after = _details(error)
    detail = error.details() or _title(code)
    reason = info.reason or code
    if not info.reason and code in _OF_GRPC:
        code, reason, sentence = _OF_GRPC[code]
        detail = sentence.format(service=service)
    prefix = f"{body_field}."
    if body_field not in {"", "*"}:
        detail = detail.removeprefix(prefix)
        violations = [FieldViolation(each.field.removeprefix(prefix), each.description) for each in violations]
    headers = {}
    if retry_after is not None or code == "UNAVAILABLE":
        headers["retry-after"] = str(retry_after or _RETRY_AFTER_SECONDS)
    return Problem(HTTP_STATUSES[code], _title(code), reason, detail, violations, dict(info.metadata), headers)


def internal() -> Problem:
    """Stand for a fault of ours: the log has the rest, under the same request id."""
    detail = "something went wrong on our side; the request id names it in the logs"
    return Problem(HTTPStatus.INTERNAL_SERVER_ERROR, _title("INTERNAL"), "INTERNAL", detail)


def _title(code: str) -> str:
    return code.replace("_", " ").capitalize()


def _details(
    error: grpc.RpcError,
) -> tuple[error_details_pb2.ErrorInfo, list[FieldViolation], int | None]:
    """Return what the status carries of `google.rpc` details; the retry delay in whole seconds, rounded up."""
    info, violations, retry_after = error_details_pb2.ErrorInfo(), [], None
    trailers: dict[Any, Any] = dict(cast("Any", error.trailing_metadata() or ()))
    packed = trailers.get("grpc-status-details-bin", b"")
    for detail in status_pb2.Status.FromString(packed).details:
        bad_request, retry = error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
        detail.Unpack(info)
        if detail.Unpack(bad_request):
            violations = [FieldViolation(each.field, each.description) for each in bad_request.field_violations]
        if detail.Unpack(retry):
            retry_after = max(1, math.ceil(retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9))
    return info, violations, retry_after
