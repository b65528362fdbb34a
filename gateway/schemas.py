"""JSON Schemas of the contract's messages, as the JSON mapping of this gateway reads and writes them."""

import re
from collections.abc import Mapping
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from gateway import descriptors, enum_names

Schema = dict[str, Any]

DOCUMENT: Final = "google.api.HttpBody"

_EXAMPLE: Final = re.compile(r"(?:\bas |^)`([^`]+)`")
_SCALARS: Final[Mapping[int, Schema]] = {
    FieldDescriptor.CPPTYPE_STRING: {"type": "string"},
    FieldDescriptor.CPPTYPE_BOOL: {"type": "boolean"},
    FieldDescriptor.CPPTYPE_INT32: {"type": "integer", "format": "int32"},
    FieldDescriptor.CPPTYPE_UINT32: {"type": "integer", "minimum": 0},
    FieldDescriptor.CPPTYPE_INT64: {"type": "string", "format": "int64"},
    FieldDescriptor.CPPTYPE_UINT64: {"type": "string", "format": "uint64"},
    FieldDescriptor.CPPTYPE_DOUBLE: {"type": "number", "format": "double"},
    FieldDescriptor.CPPTYPE_FLOAT: {"type": "number", "format": "float"},
}
_KNOWN: Final[Mapping[str, tuple[str, Schema]]] = {
    "google.type.Decimal": (
        "Decimal",
        {
            "type": "string",
            "description": "A decimal number as a string: JSON numbers would be read as binary fractions.",
            "examples": ["12.5"],
        },
    ),
    "google.type.Money": (
        "Money",
        {
            "type": "object",
            "description": "An amount in a currency.",
            "properties": {
                "amount": {"type": "string", "description": "The amount, a decimal string.", "examples": ["12.50"]},
                "currency": {"type": "string", "description": "ISO 4217 code.", "examples": ["INR"]},
            },
            "required": ["amount", "currency"],
        },
    ),
    "google.type.Interval": (
        "Interval",
        {
            "type": "object",
            "description": "A half-open interval of time.",
            "properties": {
                "start_time": {"type": "string", "format": "date-time", "description": "The first instant."},
                "end_time": {"type": "string", "format": "date-time", "description": "The first instant behind it."},
            },
        },
    ),
    "google.protobuf.Timestamp": ("", {"type": "string", "format": "date-time"}),
    "google.protobuf.Struct": ("", {"type": "object", "additionalProperties": True}),
}


class Schemas:
    """Collects the schemas of messages as they are referred to; `components` has them all."""

    def __init__(self, comments: Mapping[str, str]) -> None:
        self._comments = comments
        self._owners: dict[str, str] = {}
        self.components: dict[str, Schema] = {}

    def message(self, descriptor: Descriptor) -> Schema:
        """Return a schema that stands for the message: a reference, or the type itself where it is a plain one."""
        if descriptor.full_name in _KNOWN:
            name, schema = _KNOWN[descriptor.full_name]
            if name:
                self.components[name] = schema
            return {"$ref": f"#/components/schemas/{name}"} if name else dict(schema)
        name = self._name(descriptor)
        if name not in self.components:
            self.components[name] = {}
            self.components[name].update(self._object(descriptor))
        return {"$ref": f"#/components/schemas/{name}"}

    def field(self, field: FieldDescriptor) -> Schema:
        """Return a field's schema with its comment and the example that the comment gives."""
        schema = self._type(field)
        comment = self._comments.get(field.full_name, "")
        if comment:
            schema["description"] = comment
        example = _EXAMPLE.search(comment)
        if example is not None and schema.get("type") == "string" and "format" not in schema:
            schema["examples"] = [example[1]]
        if descriptors.is_output_only(field):
            schema["readOnly"] = True
        return schema

    def _type(self, field: FieldDescriptor) -> Schema:
        entry = descriptors.map_entry(field)
        if entry is not None:
            return {"type": "object", "additionalProperties": self._single(entry[1])}
        if field.is_repeated:
            return {"type": "array", "items": self._single(field)}
        return self._single(field)

    def _single(self, field: FieldDescriptor) -> Schema:
        if field.message_type is not None:
            return self.message(field.message_type)
        if field.enum_type is not None:
            return self._enum(field.enum_type)
        if field.type == FieldDescriptor.TYPE_BYTES:
            return {"type": "string", "contentEncoding": "base64"}
        return dict(_SCALARS[field.cpp_type])

    def _object(self, descriptor: Descriptor) -> Schema:
        schema: Schema = {"type": "object"}
        if comment := self._comments.get(descriptor.full_name):
            schema["description"] = comment
        # A document that an answer carries is the whole answer over REST.
        schema["properties"] = {
            field.name: self.field(field)
            for field in descriptor.fields
            if field.message_type is None or field.message_type.full_name != DOCUMENT
        }
        # A required request_id may come as the header Idempotency-Key instead.
        required = [
            field.name for field in descriptor.fields if descriptors.is_required(field) and field.name != "request_id"
        ]
        if required:
            schema["required"] = required
        if descriptor.oneofs:
            schema["x-one-of"] = [[field.name for field in each.fields] for each in descriptor.oneofs]
        return schema

    def _enum(self, enum: EnumDescriptor) -> Schema:
        name = self._name(enum)
        names = enum_names.bare_names(enum)
        lines = [self._comments.get(enum.full_name, ""), ""]
        for value in enum.values:
            comment = self._comments.get(f"{enum.full_name}.{value.name}", "")
            lines.append(f"- `{names[value.number]}`: {' '.join(comment.split())}")
        self.components[name] = {
            "type": "string",
            "enum": list(names.values()),
            "description": "\n".join(lines).strip(),
        }
        return {"$ref": f"#/components/schemas/{name}"}

    def _name(self, descriptor: Descriptor | EnumDescriptor) -> str:
        """Return the short name; with the package's word before it where two packages use the same one."""
        owner = self._owners.setdefault(descriptor.name, descriptor.full_name)
        if owner == descriptor.full_name:
            return descriptor.name
        return f"{descriptor.full_name.split('.')[1].capitalize()}{descriptor.name}"
