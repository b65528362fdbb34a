"""Facts about messages and fields that the JSON mapping and the documentation both ask for."""

from collections.abc import Mapping
from functools import cache
from typing import Any, cast

from google.api import field_behavior_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message


def of(message: Message) -> Descriptor:
    """Return a message's descriptor."""
    return cast("Descriptor", message.DESCRIPTOR)


@cache
def fields_by_json_name(descriptor: Descriptor) -> Mapping[str, FieldDescriptor]:
    """Return a message's fields by snake_case and lowerCamelCase name."""
    return {field.json_name: field for field in descriptor.fields} | {field.name: field for field in descriptor.fields}


@cache
def map_entry(field: FieldDescriptor) -> tuple[FieldDescriptor, FieldDescriptor] | None:
    """Return the fields of a map's keys and values; None for a field that is no map."""
    entry = field.message_type
    if entry is None or not entry.GetOptions().map_entry:
        return None
    return entry.fields_by_name["key"], entry.fields_by_name["value"]


def is_required(field: FieldDescriptor) -> bool:
    """Whether the contract demands the field."""
    return field_behavior_pb2.REQUIRED in _behaviours(field)


def is_output_only(field: FieldDescriptor) -> bool:
    """Whether only the service sets the field."""
    return field_behavior_pb2.OUTPUT_ONLY in _behaviours(field)


def _behaviours(field: FieldDescriptor) -> list[Any]:
    return list(field.GetOptions().Extensions[field_behavior_pb2.field_behavior])
