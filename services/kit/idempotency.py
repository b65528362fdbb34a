"""Requests that act once: the same `request_id` gets the stored answer, with another request it is refused."""

import hashlib
from collections.abc import Callable
from typing import Final, TypeVar

import sqlalchemy as sa
from google.protobuf.message import Message
from sqlalchemy.dialects.postgresql import insert

from services.kit.errors import AlreadyExists, InvalidArgument
from services.kit.tables import requests

MAX_REQUEST_ID_BYTES: Final = 256

M = TypeVar("M", bound=Message)


class RequestIdReused(AlreadyExists):
    """The request id was used before, for another request."""

    reason = "REQUEST_ID_REUSED"


def once(
    conn: sa.Connection,
    *,
    method: str,
    request_id: str,
    request: Message,
    response_type: type[M],
    act: Callable[[], M],
) -> M:
    """Act on a request once, in the caller's transaction, and return the response; a repeat gets the stored one.

    A repeat that arrives while the first is at work waits for it. An error of `act` stores nothing: the id is free.

    Args:
        conn: the transaction in which `act` writes.
        method: names the kind of request; ids of different methods do not meet.
        request_id: chosen by the caller; empty to act each time.
        request: compared with the first one by digest, its `request_id` field left out.
        response_type: what `act` returns.
        act: the effect.

    Raises:
        RequestIdReused: the id came with another request before.
        InvalidArgument: the id is too long or holds a NUL.
    """
    if not request_id:
        return act()
    if len(request_id.encode()) > MAX_REQUEST_ID_BYTES or "\0" in request_id:
        raise InvalidArgument.at("request_id", f"at most {MAX_REQUEST_ID_BYTES} bytes, without NUL")
    digest = _digest(request)
    key = (requests.c.method == method, requests.c.request_id == request_id)
    # The insert comes first: it makes a concurrent repeat wait for this transaction's end.
    if not _claim(conn, method, request_id, digest):
        stored = conn.execute(sa.select(requests.c.digest, requests.c.response).where(*key)).one()
        if bytes(stored.digest) != digest:
            raise _reused(method, request_id)
        return response_type.FromString(bytes(stored.response))
    response = act()
    conn.execute(sa.update(requests).where(*key).values(response=response.SerializeToString()))
    return response


def answered(
    conn: sa.Connection, *, method: str, request_id: str, request: Message, response_type: type[M]
) -> M | None:
    """Return the stored response of a request that was acted on before, None if it was not. Waits for nobody.

    For requests whose effect begins before the transaction in which `once` stores the response: an id that belongs to
    another request is refused before anything is done.

    Raises:
        RequestIdReused: the id came with another request before.
    """
    key = (requests.c.method == method, requests.c.request_id == request_id)
    stored = conn.execute(sa.select(requests.c.digest, requests.c.response).where(*key)).one_or_none()
    if stored is None:
        return None
    if bytes(stored.digest) != _digest(request):
        raise _reused(method, request_id)
    return response_type.FromString(bytes(stored.response))


def _reused(method: str, request_id: str) -> RequestIdReused:
    return RequestIdReused(
        f"request_id {request_id!r} was used for another {method} request; take a new id for a new request",
        metadata={"request_id": request_id, "method": method},
    )


def _claim(conn: sa.Connection, method: str, request_id: str, digest: bytes) -> bool:
    statement = insert(requests).values(method=method, request_id=request_id, digest=digest)
    claimed = conn.execute(statement.on_conflict_do_nothing().returning(requests.c.request_id))
    return claimed.one_or_none() is not None


def _digest(request: Message) -> bytes:
    bare = type(request)()
    bare.CopyFrom(request)
    if "request_id" in bare.DESCRIPTOR.fields_by_name:
        bare.ClearField("request_id")
    return hashlib.blake2b(bare.SerializeToString(deterministic=True), digest_size=16).digest()
