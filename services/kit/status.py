"""The one translation of errors to gRPC statuses, with the details of google.rpc (ErrorInfo, BadRequest, RetryInfo)."""

from typing import Final

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from services.kit.db import is_unavailable
from services.kit.errors import ServiceError, Unavailable

DOMAIN: Final = "meterscope"


def to_service_error(error: Exception) -> ServiceError | None:
    """Return the service error that `error` is or stands for; None if it is a fault of ours."""
    if isinstance(error, ServiceError):
        return error
    if is_unavailable(error):
        return Unavailable(
            "the database cannot be reached or lost the connection; nothing was acknowledged, send it again"
        )
    return None


def to_status(error: ServiceError) -> grpc.Status:
    """Return the status to abort a call with."""
    code = grpc.StatusCode[error.status]
    details: list[Message] = [error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.metadata)]
    if error.violations:
        violations = [
            error_details_pb2.BadRequest.FieldViolation(field=violation.field, description=violation.description)
            for violation in error.violations
        ]
        details.append(error_details_pb2.BadRequest(field_violations=violations))
    if isinstance(error, Unavailable):
        delay = Duration()
        delay.FromMilliseconds(int(error.retry_after * 1000))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    packed = []
    for detail in details:
        packed.append(AnyMessage())
        packed[-1].Pack(detail)
    status = status_pb2.Status(code=code.value[0], message=error.message, details=packed)
    return rpc_status.to_status(status)
