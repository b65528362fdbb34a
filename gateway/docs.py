"""The documentation page `/docs`, made of the OpenAPI document: services, methods, parameters, schemas, examples."""

import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlencode

from starlette.responses import Response

from gateway.examples import Examples
from gateway.page import Pages

_ADDRESS: Final = "http://127.0.0.1:8080"
_SERVICES: Final = ("usage", "billing", "payments", "alerts")


@dataclass(frozen=True)
class Row:
    """A parameter or a field. `target` is the schema that the type refers to, if any."""

    name: str
    type: str
    target: str
    description: str
    where: str = ""
    is_required: bool = False
    is_read_only: bool = False


@dataclass(frozen=True)
class Operation:
    """A method as the page shows it."""

    id: str
    verb: str
    path: str
    summary: str
    description: str
    parameters: list[Row]
    body: Row | None
    body_fields: list[Row]
    answer: Row | None
    curl: str
    answer_example: str


@dataclass(frozen=True)
class Section:
    """The methods of one gRPC service, of one process."""

    service: str
    name: str
    description: str
    operations: list[Operation]


@dataclass(frozen=True)
class SchemaEntry:
    """A schema with its fields or its values."""

    name: str
    description: str
    fields: list[Row]
    type: str


def page(document: Mapping[str, Any], pages: Pages) -> Response:
    """Return the page for a document of `openapi.build`."""
    schemas = document["components"]["schemas"]
    view = _View(document, Examples(schemas))
    sections = list(view.sections())
    return pages.render(
        "docs.html",
        {
            "info": document["info"],
            "services": [(name, [each for each in sections if each.service == name]) for name in _SERVICES],
            "schemas": [_schema_entry(name, schema) for name, schema in schemas.items()],
            "operation_count": sum(len(section.operations) for section in sections),
        },
    )


class _View:
    """Turns the document's operations into what the template shows."""

    def __init__(self, document: Mapping[str, Any], examples: Examples) -> None:
        self._document = document
        self._examples = examples

    def sections(self) -> Iterator[Section]:
        """Walk the tags in their order."""
        for tag in self._document["tags"]:
            operations = [
                self._operation(verb, path, operation)
                for path, verbs in self._document["paths"].items()
                for verb, operation in verbs.items()
                if operation["tags"] == [tag["name"]]
            ]
            yield Section(tag["x-service"], tag["name"], tag["description"], operations)

    def _operation(self, verb: str, path: str, operation: Mapping[str, Any]) -> Operation:
        content = operation.get("requestBody", {}).get("content", {})
        # The type that the contract has a schema for; CloudEvents may come as others too.
        body_type, body = next(
            ((media, each["schema"]) for media, each in content.items() if "$ref" in each["schema"]), ("", None)
        )
        answer = operation["responses"]["200"]["content"].get("application/json", {}).get("schema")
        example = self._examples.answer(answer) if answer else None
        return Operation(
            id=operation["operationId"],
            verb=verb.upper(),
            path=path,
            summary=operation["summary"],
            description=operation["description"],
            parameters=[_parameter(each) for each in operation["parameters"]],
            body=_row("", body) if body else None,
            body_fields=_fields(self._document["components"]["schemas"][_target(body)]) if body else [],
            answer=_row("", answer) if answer else None,
            curl=self._curl(
                verb,
                path,
                operation["parameters"],
                body,
                body_type=body_type,
                is_file="text/csv" in content,
            ),
            answer_example=json.dumps(example, indent=2, ensure_ascii=False) if answer else "",
        )

    def _curl(
        self,
        verb: str,
        path: str,
        parameters: list[Mapping[str, Any]],
        body: Mapping[str, Any] | None,
        *,
        body_type: str,
        is_file: bool,
    ) -> str:
        query = {}
        headers = []
        for each in parameters:
            value = self._examples.text(each["name"], each["schema"])
            if each["in"] == "path":
                path = path.replace(f"{{{each['name']}}}", quote(value))
            elif each["in"] == "query" and each["required"]:
                query[each["name"]] = value
            elif each["in"] == "header" and each["required"]:
                headers.append(f"{each['name']}: 1f0c7a52-1")
        url = f"{_ADDRESS}{path}" + (f"?{urlencode(query, safe=':')}" if query else "")
        # The ellipsis stands for what the reader fills in: it reads better as itself.
        url = url.replace(quote("…"), "…")
        method = "" if verb == "get" or (verb == "post" and (body or is_file)) else f"-X {verb.upper()} "
        lines = [f"curl {method}{shlex.quote(url)}"]
        lines += [f"  -H {shlex.quote(header)}" for header in headers]
        if body:
            text = json.dumps(self._examples.request(body), indent=2, ensure_ascii=False).replace("\n", "\n  ")
            lines += [f"  -H 'Content-Type: {body_type}'", f"  -d {shlex.quote(text)}"]
        if is_file:
            lines += ["  -H 'Content-Type: text/csv'", "  --data-binary @calls.csv"]
        return " \\\n".join(lines)


def _schema_entry(name: str, schema: Mapping[str, Any]) -> SchemaEntry:
    return SchemaEntry(name, schema.get("description", ""), _fields(schema), schema.get("type", ""))


def _fields(schema: Mapping[str, Any]) -> list[Row]:
    required = schema.get("required", ())
    return [_row(name, field, is_required=name in required) for name, field in schema.get("properties", {}).items()]


def _row(name: str, schema: Mapping[str, Any], *, is_required: bool = False) -> Row:
    return Row(
        name=name,
        type=_type(schema),
        target=_target(schema),
        description=schema.get("description", ""),
        is_required=is_required,
        is_read_only=schema.get("readOnly", False),
    )


def _parameter(parameter: Mapping[str, Any]) -> Row:
    return Row(
        name=parameter["name"],
        type=_type(parameter["schema"]),
        target=_target(parameter["schema"]),
        description=parameter["description"],
        where=parameter["in"],
        is_required=parameter["required"],
    )


def _target(schema: Mapping[str, Any] | None) -> str:
    """Return the name of the schema that is referred to, directly, by items or by values."""
    if not schema:
        return ""
    values = schema.get("additionalProperties")
    if isinstance(values, dict):
        return _target(values)
    return _target(schema["items"]) if "items" in schema else str(schema.get("$ref", "")).rpartition("/")[2]


def _type(schema: Mapping[str, Any]) -> str:
    values = schema.get("additionalProperties")
    if isinstance(values, dict):
        return f"map of {_type(values)}"
    if "items" in schema:
        return f"list of {_type(schema['items'])}"
    if "$ref" in schema:
        return _target(schema)
    named = schema.get("type", "")
    plain = " or ".join(named) if isinstance(named, list) else str(named)
    return {"date-time": "time", "int64": "int64 string"}.get(schema.get("format", ""), plain)
