"""The body of a request, within its limits."""

from http import HTTPStatus
from typing import Final

from starlette.requests import Request

from gateway.errors import Refusal, Stalled
from services.kit.server import MAX_MESSAGE_BYTES

MAX_BODY_BYTES: Final = MAX_MESSAGE_BYTES
_MIB: Final = 1024 * 1024


async def read_body(request: Request) -> bytes:
    """Return a body of JSON, empty if there is none.

    Raises:
        Refusal: 413 above 32 MiB, 415 for anything but JSON in UTF-8.
    """
    body = await read_any_body(request)
    if body:
        _check_type(request)
    return body


async def read_any_body(request: Request) -> bytes:
    """Return a body of any type, empty if there is none.

    Raises:
        Refusal: 413 above 32 MiB.
    """
    if int(request.headers.get("content-length", "0")) > MAX_BODY_BYTES:
        await drain(request)
        raise _too_large()
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > MAX_BODY_BYTES:
            parts.clear()
            await drain(request)
            raise _too_large()
        parts.append(part)
    return b"".join(parts)


def check_stream(request: Request) -> None:
    """Check that a body may be passed on as it comes.

    Raises:
        Refusal: 415 for anything but plain `text/csv`.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0]
    if media_type.strip().lower() != "text/csv":
        raise Refusal(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "NOT_CSV",
            f"the Content-Type is {request.headers.get('content-type', '')[:128]!r}; send text/csv",
            headers={"accept": "text/csv"},
        )
    check_encoding(request, "CSV")


async def drain(request: Request) -> None:
    """Take in as much again before the answer: a client that is still sending would not read it."""
    size = 0
    if "expect" in request.headers:
        return
    while size <= MAX_BODY_BYTES:
        try:
            message = await request.receive()
        except Stalled:
            return
        size += len(message.get("body", b""))
        if not message.get("more_body", False):
            return


def _too_large() -> Refusal:
    return Refusal(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        "BODY_TOO_LARGE",
        f"the body is larger than {MAX_BODY_BYTES // _MIB} MiB; send it in parts",
        headers={"connection": "close"},
    )


def _check_type(request: Request) -> None:
    media_type, _, parameters = request.headers.get("content-type", "").partition(";")
    charset = parameters.lower().replace(" ", "").replace('"', "")
    if media_type.strip().lower() != "application/json" or charset not in {"", "charset=utf-8"}:
        raise Refusal(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "NOT_JSON",
            f"the Content-Type is {request.headers.get('content-type', '')[:128]!r}; send application/json in UTF-8",
            headers={"accept": "application/json"},
        )
    check_encoding(request, "JSON")


def check_encoding(request: Request, what: str) -> None:
    """Check that a body is sent plain.

    Raises:
        Refusal: 415 for a compressed one.
    """
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        raise Refusal(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "ENCODED",
            f"the Content-Encoding is {encoding[:128]!r}; send plain {what}",
        )
