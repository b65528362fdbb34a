"""Messages as JSON: snake_case names, bare enum values, Decimal as string, every field without presence shown.

64-bit integers are strings, as proto3 JSON has it: many programs read JSON numbers as doubles, which end at 2⁵³.
"""

import base64
import math
from collections.abc import Callable, Mapping
from typing import Any, Final

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from gateway import descriptors, enum_names
from gateway.well_known import write_decimal, write_money, write_timestamp

_LONG: Final = {FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64}
_REAL: Final = {FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT}
_SPECIAL: Final[Mapping[str, Callable[[Any], Any]]] = {
    "google.type.Decimal": write_decimal,
    "google.type.Money": write_money,
    "google.protobuf.Timestamp": write_timestamp,
}


def write(message: Message) -> Any:
    """Return the message as JSON values. Absent messages and oneof members are left out, defaults are not."""
    descriptor = descriptors.of(message)
    name = descriptor.full_name
    special = _SPECIAL.get(name)
    if special is not None:
        return special(message)
    if name.startswith("google.protobuf."):
        return json_format.MessageToDict(message)
    return {
        field.name: _field(message, field)
        for field in descriptor.fields
        if not field.has_presence or message.HasField(field.name)
    }


def _field(message: Message, field: FieldDescriptor) -> Any:
    value = getattr(message, field.name)
    entry = descriptors.map_entry(field)
    if entry is not None:
        return {_key(key): _single(value[key], entry[1]) for key in sorted(value)}
    if field.is_repeated:
        return [_single(item, field) for item in value]
    return _single(value, field)


def _single(value: Any, field: FieldDescriptor) -> Any:
    cpp_type = field.cpp_type
    if cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
        return write(value)
    if field.enum_type is not None:
        return enum_names.bare_names(field.enum_type).get(value, value)
    if cpp_type in _LONG:
        return str(value)
    if cpp_type in _REAL:
        return value if math.isfinite(value) else str(value)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return base64.b64encode(value).decode()
    return value


def _key(key: Any) -> str:
    return str(key).lower() if isinstance(key, bool) else str(key)
