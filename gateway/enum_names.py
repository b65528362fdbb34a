"""Enum values as JSON shows them: without the prefix that proto demands (`INVOICE_STATE_PAID` is `PAID`)."""

import re
from collections.abc import Mapping
from functools import cache
from typing import Final

from google.protobuf.descriptor import EnumDescriptor

_WORD_START: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


@cache
def bare_names(enum: EnumDescriptor) -> Mapping[int, str]:
    """Return the bare name of each number, in the order of declaration."""
    prefix = _WORD_START.sub("_", enum.name).upper() + "_"
    return {value.number: value.name.removeprefix(prefix) for value in enum.values}


@cache
def numbers(enum: EnumDescriptor) -> Mapping[str, int]:
    """Return the number of each name, bare and full."""
    return {name: number for number, name in bare_names(enum).items()} | {
        value.name: value.number for value in enum.values
    }
