"""Example values for the documentation, made of what the contract's comments give as examples."""

import re
from collections.abc import Mapping
from typing import Any, Final

Schema = Mapping[str, Any]

_BY_FORMAT: Final = {"date-time": "2026-01-31T18:30:00Z", "int64": "1", "int32": 1, "double": 1.5}
_BY_TYPE: Final = {"boolean": False, "integer": 1, "number": 1.5}
_BY_NAME: Final = {"currency": "INR", "time_zone": "Asia/Kolkata", "display_name": "Example"}
_MAX_DEPTH: Final = 6
_WORD_START: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_UNSPECIFIED: Final = "UNSPECIFIED"


class Examples:
    """Makes examples for the schemas of one OpenAPI document."""

    def __init__(self, schemas: Mapping[str, Schema]) -> None:
        self._schemas = schemas
        self._ids = dict(_ids(schemas))

    def request(self, schema: Schema) -> Any:
        """Return what a caller would send: what is required, and what the comments give an example for."""
        return self._value("", schema, is_request=True, depth=0)

    def answer(self, schema: Schema) -> Any:
        """Return what a service would answer: every field."""
        return self._value("", schema, is_request=False, depth=0)

    def text(self, name: str, schema: Schema) -> str:
        """Return what a path or a query would hold."""
        return str(self._value(name, schema, is_request=True, depth=0))

    def _value(self, name: str, schema: Schema, *, is_request: bool, depth: int) -> Any:
        schema = self._resolved(schema)
        if "examples" in schema:
            return schema["examples"][0]
        if "enum" in schema:
            return next((value for value in schema["enum"] if value != _UNSPECIFIED), _UNSPECIFIED)
        kind = schema.get("type")
        if kind == "array":
            if depth >= _MAX_DEPTH:
                return []
            return [self._value(name, schema["items"], is_request=is_request, depth=depth + 1)]
        if kind == "object":
            return self._object(schema, is_request=is_request, depth=depth + 1)
        if schema.get("format") in _BY_FORMAT:
            return _BY_FORMAT[schema["format"]]
        if kind == "string":
            return _BY_NAME.get(name) or self._ids.get(name) or "…"
        return _BY_TYPE.get(str(kind), {})

    def _object(self, schema: Schema, *, is_request: bool, depth: int) -> dict[str, Any]:
        values = schema.get("additionalProperties")
        if isinstance(values, dict):
            return {"name": self._value("", values, is_request=is_request, depth=depth)}
        unwanted = {name for group in schema.get("x-one-of", ()) for name in group[1:]}
        chosen = {group[0] for group in schema.get("x-one-of", ())}
        required = {*schema.get("required", ()), *chosen}
        return {
            name: self._value(name, field, is_request=is_request, depth=depth)
            for name, field in schema.get("properties", {}).items()
            if name not in unwanted
            and (not is_request or (not field.get("readOnly") and (name in required or "examples" in field)))
        }

    def _resolved(self, schema: Schema) -> Schema:
        """Follow a reference; an example beside it counts."""
        if "$ref" not in schema:
            return schema
        target = self._schemas[schema["$ref"].rpartition("/")[2]]
        return {**target, **{key: value for key, value in schema.items() if key != "$ref"}}


def _ids(schemas: Mapping[str, Schema]) -> list[tuple[str, str]]:
    """Return what ids look like (`customer_id`: `cus_…`), from the field `id` of each resource."""
    found = []
    for name, schema in schemas.items():
        examples = schema.get("properties", {}).get("id", {}).get("examples")
        if examples:
            snake = _WORD_START.sub("_", name).lower()
            found += [(f"{snake}_id", examples[0]), (snake, examples[0])]
    return found
