"""The OpenAPI 3.1 document, read off the contract: its annotations are the paths, its comments the descriptions."""

import re
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from gateway.cloudevents import description as cloudevents
from gateway.cloudevents.endpoint import PATH as CLOUDEVENTS_PATH
from gateway.contract import Binding, Contract
from gateway.descriptors import is_required
from gateway.problem import HTTP_STATUSES
from gateway.schemas import DOCUMENT, Schema, Schemas
from gateway.transcoding import is_leaf

_ABOUT: Final = """\
Meterscope meters usage, bills it, collects the money, and shows which requests made each invoice line.

JSON follows proto3 JSON with these rules. Names are answered in snake_case and taken in lowerCamelCase too. Enum \
values have no prefix (`PAID`). Quantities and prices are decimal strings (`"12.50"`), amounts are \
`{"amount": "12.50", "currency": "INR"}`, times RFC 3339, 64-bit integers strings. Fields that hold nothing are shown; \
absent objects are left out. An unknown field, a wrong type or a key given twice is refused, and the field named.

A request that changes something can be sent again safely: with the same `Idempotency-Key` it gets the first answer.

Errors are `application/problem+json` (RFC 9457) with `reason`, `errors[]` (`field`, `message`), `request_id` and \
`trace_id`. `X-Request-Id` and `traceparent` are taken and passed on. Bodies of JSON are at most 32 MiB.

`/health`, `/health/ready` and `/health/live` tell how the services are; `/billing` shows the same data to people.
"""
_PROBLEM: Final[Schema] = {
    "type": "object",
    "description": "What was wrong (RFC 9457).",
    "properties": {
        "type": {"type": "string", "format": "uri", "description": "Names the kind of problem."},
        "title": {"type": "string", "description": "The same for every problem of its status."},
        "status": {"type": "integer", "description": "The HTTP status."},
        "detail": {"type": "string", "description": "What was wrong this time and what to do."},
        "instance": {"type": "string", "description": "The path that was asked."},
        "reason": {"type": "string", "description": "An UPPER_SNAKE_CASE word for programs."},
        "errors": {
            "type": "array",
            "description": "The fields at fault.",
            "items": {
                "type": "object",
                "properties": {
                    "field": {"type": "string", "description": "The field's path in the request."},
                    "message": {"type": "string", "description": "What is wrong with it and what to send."},
                },
                "required": ["field", "message"],
            },
        },
        "request_id": {"type": "string", "description": "Names the request in the logs."},
        "trace_id": {"type": "string", "description": "W3C id of the request's trace, 32 hex digits."},
        "metadata": {
            "type": "object",
            "description": "Further facts for programs.",
            "additionalProperties": {"type": "string"},
        },
    },
    "required": [
        "type", "title", "status", "detail", "instance", "reason", "errors", "request_id", "trace_id",
    ],
}  # fmt: skip
_CODES: Final = re.compile("|".join(HTTP_STATUSES))
_SENTENCE_END: Final = re.compile(r"[.;](?=\s|$)")


def build(contract: Contract, comments: Mapping[str, str], version: str) -> dict[str, Any]:
    """Return the document.

    Args:
        contract: the methods and their bindings.
        comments: the contract's comments by full name.
        version: of this installation.
    """
    writer = _Writer(comments)
    paths: dict[str, dict[str, Any]] = {}
    tags: dict[str, Schema] = {}
    for binding in contract.bindings:
        service = binding.method.descriptor.containing_service
        operation = writer.operation(binding)
        paths.setdefault(binding.template.text, {})[binding.verb.lower()] = operation
        tags[service.name] = {
            "name": service.name,
            "description": comments.get(service.full_name, ""),
            "x-service": binding.method.service,
        }
    results = contract.methods["meterscope.usage.v1.EventService.IngestEvents"].descriptor.output_type
    paths[CLOUDEVENTS_PATH] = {"post": cloudevents.operation(writer.schemas.message(results))}
    schemas = writer.schemas.components | cloudevents.schemas() | {"Problem": _PROBLEM}
    problem = {"$ref": "#/components/schemas/Problem"}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Meterscope",
            "version": version,
            "description": _ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": list(tags.values()),
        "paths": paths,
        "components": {
            "schemas": dict(sorted(schemas.items())),
            "responses": {
                "Problem": {
                    "description": "What was wrong.",
                    "content": {"application/problem+json": {"schema": problem}},
                }
            },
        },
    }


class _Writer:
    """Writes operations; collects the schemas that they refer to."""

    def __init__(self, comments: Mapping[str, str]) -> None:
        self._comments = comments
        self.schemas = Schemas(comments)

    def operation(self, binding: Binding) -> Schema:
        """Return the operation of a binding."""
        descriptor = binding.method.descriptor
        service = descriptor.containing_service.name
        comment = self._comments.get(descriptor.full_name, "")
        written: Schema = {
            "operationId": f"{service}_{descriptor.name}",
            "tags": [service],
            "summary": _SENTENCE_END.split(" ".join(comment.split()), maxsplit=1)[0],
            "description": comment,
            "parameters": list(self._parameters(binding)),
            "responses": self._responses(binding, comment),
        }
        if binding.is_stream:
            text: Schema = {"text/csv": {"schema": {"type": "string", "description": "The file, of any size."}}}
            written["requestBody"] = {"required": True, "content": text}
        elif binding.body_type is not None:
            written["requestBody"] = {
                "required": binding.body != "*",
                "content": {"application/json": {"schema": self.schemas.message(binding.body_type)}},
            }
        return written

    def _parameters(self, binding: Binding) -> Iterator[Schema]:
        request = binding.method.descriptor.input_type
        for name in binding.template.variables:
            yield self._parameter("path", name, request.fields_by_name[name], required=True)
        if binding.body != "*":
            skipped = {*binding.template.variables, binding.body, "request_id"}
            for name, field in _query_fields(request):
                if name.split(".")[0] not in skipped:
                    yield self._parameter("query", name, field, required=is_required(field))
        if binding.takes_request_id:
            field = request.fields_by_name["request_id"]
            is_needed = is_required(field) and binding.body != "*"
            yield self._parameter("header", "Idempotency-Key", field, required=is_needed)

    def _parameter(self, where: str, name: str, field: FieldDescriptor, *, required: bool) -> Schema:
        schema = self.schemas.field(field)
        description = schema.pop("description", "")
        return {"name": name, "in": where, "required": required, "description": description, "schema": schema}

    def _responses(self, binding: Binding, comment: str) -> Schema:
        answer = binding.method.descriptor.output_type
        document: Schema = {"*/*": {"schema": {}}}
        if answer.full_name == DOCUMENT:
            content = document
            description = "The document, as its Content-Type says."
        else:
            content = {"application/json": {"schema": self.schemas.message(answer)}}
            if any(field.message_type and field.message_type.full_name == DOCUMENT for field in answer.fields):
                content |= document
            description = self._comments.get(answer.full_name, "")
        problem = {"$ref": "#/components/responses/Problem"}
        named = {str(HTTP_STATUSES[code]): problem for code in _CODES.findall(comment)}
        return {
            str(int(HTTPStatus.OK)): {"description": description, "content": content},
            **dict(sorted(named.items())),
            "default": problem,
        }


def _query_fields(message: Descriptor, prefix: str = "") -> Iterator[tuple[str, FieldDescriptor]]:
    """Walk the fields that a query can carry; those of messages by their path. No contract of ours is recursive."""
    for field in message.fields:
        if is_leaf(field):
            yield prefix + field.name, field
        elif field.message_type is not None and not field.is_repeated:
            yield from _query_fields(field.message_type, f"{prefix}{field.name}.")
