"""The one translation of errors to gRPC statuses, with the details of google.rpc (ErrorInfo, BadRequest, RetryInfo)."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import grpc
import psycopg
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status
from psycopg.errors import UntranslatableCharacter
from sqlalchemy.exc import DBAPIError

from services.kit.db import is_unavailable
from services.kit.errors import FieldViolation, ServiceError, Unavailable

DOMAIN: Final = "meterscope"

# Clients refuse more than 8 KiB of trailers (grpcio's default), and all of this goes there: the message twice, once with
# three bytes for each that is not ASCII, and the details in base64. What callers send is quoted in it at any length.
_MAX_MESSAGE: Final = 800
_MAX_VALUE: Final = 256
_MAX_DESCRIPTION: Final = 400
_MAX_VIOLATIONS: Final = 2_000


def to_service_error(error: Exception) -> ServiceError | None:
    """Return the service error that `error` is or stands for; None if it is a fault of ours."""
    if isinstance(error, ServiceError):
        return error
    if is_unavailable(error):
        return Unavailable(
            "the database cannot be reached or lost the connection; nothing was acknowledged, send it again"
        )
    return None


def nul_field(error: BaseException, request: object) -> str:
    """Return the path of the text that the database refused for its NUL (U+0000), empty if that is not what happened.

    PostgreSQL keeps every character but that one. Looked for only once refused: requests may be large.
    """
    if isinstance(error, DBAPIError):
        error = error.orig or error
    refused = isinstance(error, UntranslatableCharacter) or (
        isinstance(error, psycopg.DataError) and "NUL" in str(error)
    )
    return _first_nul(request, "") if refused and isinstance(request, Message) else ""


def _first_nul(message: Message, path: str) -> str:
    for field, value in message.ListFields():
        for place, part in _parts(field, value):
            here = f"{path}{field.name}{place}"
            if isinstance(part, Message) and (found := _first_nul(part, f"{here}.")):
                return found
            if isinstance(part, str) and "\0" in part:
                return here
    return ""


def _parts(field: FieldDescriptor, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield a field's values with their places: `[3]` in a list, `.name` in a map, where the names are texts as well."""
    if not field.is_repeated:
        yield "", value
    elif field.message_type and field.message_type.GetOptions().map_entry:
        for key, part in value.items():
            yield f".{key!r}", key
            yield f".{key}", part
    else:
        yield from ((f"[{index}]", part) for index, part in enumerate(value))


def to_status(error: ServiceError) -> grpc.Status:
    """Return the status to abort a call with, cut to what trailers can carry."""
    code = grpc.StatusCode[error.status]
    metadata = {name: _cut(value, _MAX_VALUE) for name, value in error.metadata.items()}
    details: list[Message] = [error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata)]
    if error.violations:
        details.append(_bad_request(error.violations))
    if error.retry_after is not None:
        delay = Duration()
        delay.FromMilliseconds(int(error.retry_after * 1000))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    packed = []
    for detail in details:
        packed.append(AnyMessage())
        packed[-1].Pack(detail)
    status = status_pb2.Status(code=code.value[0], message=_cut(error.message, _MAX_MESSAGE), details=packed)
    return rpc_status.to_status(status)


def _bad_request(violations: Sequence[FieldViolation]) -> error_details_pb2.BadRequest:
    """Return the first violations, as many as fit: there is always one."""
    message = error_details_pb2.BadRequest()
    for violation in violations:
        message.field_violations.add(
            field=_cut(violation.field, _MAX_VALUE), description=_cut(violation.description, _MAX_DESCRIPTION)
        )
        if message.ByteSize() > _MAX_VIOLATIONS:
            break
    return message


def _cut(text: str, most: int) -> str:
    """Return at most `most` bytes of UTF-8, of a longer text both ends: what to do about it stands behind what it quotes."""
    data = text.encode()
    if len(data) <= most:
        return text
    gap = " … "
    room = most - len(gap.encode())
    head, tail = data[: room - room // 2], data[-(room // 2) :]
    return head.decode(errors="ignore") + gap + tail.decode(errors="ignore")
