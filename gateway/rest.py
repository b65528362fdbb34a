"""REST: an HTTP request is matched to a binding, transcoded, sent to its service, and the answer written as JSON."""

import asyncio
import functools
from collections.abc import AsyncIterator
from datetime import timedelta
from http import HTTPStatus
from typing import Any, Final

import grpc
import orjson
from google.api.httpbody_pb2 import HttpBody
from google.protobuf.message import Message
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Message as Part
from starlette.types import Receive, Scope, Send

from gateway import json_writer, problem
from gateway.backends import Backends
from gateway.contract import Binding, Contract
from gateway.errors import Refusal, Stalled
from gateway.observation import ROUTE
from gateway.page import SECURITY_HEADERS
from gateway.request_body import MAX_BODY_BYTES, check_stream, drain, read_body
from gateway.transcoding import read_request
from services.kit.errors import ServiceError
from services.kit.streams import StreamIdle

# Above this size JSON is read and written in a thread, so that one caller's batch does not hold up the others.
_LARGE: Final = 64 * 1024


class Rest:
    """ASGI application of every annotated method."""

    def __init__(self, contract: Contract, *, stream_idle: timedelta) -> None:
        """Prepare. `stream_idle` is how long a body may stand still."""
        self._bindings = sorted(contract.bindings, key=lambda binding: binding.template.rank)
        self._idle = stream_idle.total_seconds()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""

        async def within_time() -> Part:
            try:
                async with asyncio.timeout(self._idle):
                    return await receive()
            except TimeoutError:
                raise Stalled(self._idle) from None

        request = Request(scope, within_time)
        try:
            response = await self._answer(request)
        except ClientDisconnect:
            return
        except Refusal as refusal:
            response = problem.from_refusal(refusal).response(request.scope["raw_path"].decode("ascii"))
        except ServiceError as error:
            response = problem.from_service_error(error).response(request.scope["raw_path"].decode("ascii"))
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        binding, path = self._match(request)
        request.scope[ROUTE] = binding.template.text
        if binding.is_stream:
            return await self._pass_on(request, binding)
        body = await read_body(request)
        read = functools.partial(
            read_request, binding, path, request.scope["query_string"], body, request.headers.get("idempotency-key")
        )
        message = await asyncio.to_thread(read) if len(body) > _LARGE else read()
        if message.ByteSize() > MAX_BODY_BYTES:
            raise Refusal(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "BODY_TOO_LARGE", "the request is too large; send it in parts"
            )
        backends: Backends = request.state.backends
        try:
            answer = await backends.call(binding.method, message)
        except grpc.aio.AioRpcError as error:
            translated = problem.from_rpc_error(error, binding.method.service, binding.body)
            return translated.response(request.scope["raw_path"].decode("ascii"))
        return await _write(answer)

    async def _pass_on(self, request: Request, binding: Binding) -> Response:
        """Pass a body on part by part, whatever its size; the query is in the first message."""
        check_stream(request)
        key = request.headers.get("idempotency-key")
        first = read_request(binding, {}, request.scope["query_string"], b"", key)
        has_more = True

        async def messages() -> AsyncIterator[Message]:
            nonlocal has_more
            yield first
            while has_more:
                part = await request.receive()
                if part["type"] == "http.disconnect":
                    raise ClientDisconnect
                has_more = part.get("more_body", False)
                if part.get("body"):
                    yield binding.method.request(**{binding.body: part["body"]})

        backends: Backends = request.state.backends
        try:
            answer = await backends.stream(binding.method, messages())
        except grpc.RpcError as error:
            found = problem.from_rpc_error(error, binding.method.service, binding.body)
            if found.reason == StreamIdle.reason:
                # It waits for the body as long as we do, and may be the first.
                raise Stalled(self._idle) from None
            if has_more:
                # A client that is still sending would not read the answer.
                await drain(request)
            response = found.response(request.scope["raw_path"].decode("ascii"))
            response.headers["connection"] = "close"
            return response
        return await _write(answer)

    def _match(self, request: Request) -> tuple[Binding, dict[str, bytes]]:
        raw_path = request.scope["raw_path"].decode("ascii")
        verb = "GET" if request.method == "HEAD" else request.method
        allowed: dict[str, Any] = {}
        for binding in self._bindings:
            path = binding.template.match(raw_path)
            if path is not None and binding.verb == verb:
                return binding, path
            if path is not None:
                request.scope[ROUTE] = binding.template.text
                allowed[binding.verb] = None
        if not allowed:
            raise Refusal(HTTPStatus.NOT_FOUND, "NO_SUCH_ROUTE", "there is nothing at this path; /docs lists what is")
        if "GET" in allowed:
            allowed["HEAD"] = None
        verbs = ", ".join(sorted(allowed))
        raise Refusal(
            HTTPStatus.METHOD_NOT_ALLOWED,
            "METHOD_NOT_ALLOWED",
            f"{request.method} is not allowed here; use {verbs}",
            headers={"allow": verbs},
        )


async def _write(answer: Message) -> Response:
    document = _document(answer)
    if document is not None:
        content_type = document.content_type or "application/octet-stream"
        return Response(document.data, headers={**SECURITY_HEADERS, "content-type": content_type})
    is_large = answer.ByteSize() > _LARGE
    content = await asyncio.to_thread(_json, answer) if is_large else _json(answer)
    return Response(content, media_type="application/json", headers={"cache-control": "no-store"})


def _document(answer: Message) -> HttpBody | None:
    """Return the document that an answer is, or that it carries in a field because one was asked for."""
    if isinstance(answer, HttpBody):
        return answer
    return next((value for _, value in answer.ListFields() if isinstance(value, HttpBody)), None)


def _json(answer: Message) -> bytes:
    return orjson.dumps(json_writer.write(answer))
