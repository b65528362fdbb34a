"""Scalar values of JSON as fields hold them: exact, in range, and nothing guessed."""

import base64
import binascii
import math
import re
from typing import Any, Final

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor

from gateway import enum_names
from gateway.errors import UnfitValue
from gateway.json_text import shown

_WHOLE: Final = re.compile(r"-?[0-9]{1,20}")
_EXACT_DOUBLE: Final = 2**53
_RANGES: Final = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}
_KINDS: Final = {
    str: "a string", bool: "a boolean", int: "a number", float: "a number", list: "an array", dict: "an object",
}  # fmt: skip


def kind(value: Any) -> str:
    """Return what a JSON value is, for an error message."""
    return _KINDS.get(type(value), "null")


def read_scalar(value: Any, field: FieldDescriptor) -> Any:
    """Return a JSON value as the field's type.

    Raises:
        UnfitValue: of another type or out of range.
    """
    cpp_type = field.cpp_type
    if cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return _text(value, is_bytes=field.type == FieldDescriptor.TYPE_BYTES)
    if field.enum_type is not None:
        return _enum(value, field.enum_type)
    if cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        if not isinstance(value, bool):
            raise UnfitValue(f"{kind(value)} is given; send true or false")
        return value
    if cpp_type in _RANGES:
        return _whole(value, *_RANGES[cpp_type])
    return _floating(value)


def _text(value: Any, *, is_bytes: bool) -> str | bytes:
    if not isinstance(value, str):
        raise UnfitValue(f"{kind(value)} is given; send a string")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise UnfitValue("is not valid Unicode: a surrogate stands alone") from None
    if not is_bytes:
        return value
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise UnfitValue("is not base64") from None


def _enum(value: Any, enum: EnumDescriptor) -> int:
    number = enum_names.numbers(enum).get(value) if isinstance(value, str) else None
    if number is None:
        raise UnfitValue(f"{shown(value)} is not one of {', '.join(enum_names.bare_names(enum).values())}")
    return number


def _whole(value: Any, least: int, most: int) -> int:
    is_digits = isinstance(value, str) and _WHOLE.fullmatch(value)
    is_integral = isinstance(value, float) and value.is_integer() and abs(value) <= _EXACT_DOUBLE
    if not (is_digits or is_integral or type(value) is int):
        raise UnfitValue(f"{shown(value)} is not a whole number")
    number = int(value)
    if not least <= number <= most:
        raise UnfitValue(f"{shown(value)} is outside {least} to {most}")
    return number


def _floating(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UnfitValue(f"{kind(value)} is given; send a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if math.isinf(number):
        raise UnfitValue(f"{shown(value)} is too large for a double")
    return number
