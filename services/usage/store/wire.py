"""PostgreSQL's binary format, for the hot path: array parameters and COPY rows as ready-made bytes.

psycopg's own dumpers cost 8 µs an element; joining fixed-width elements costs nothing to speak of.
"""

import struct
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import psycopg
from psycopg.adapt import Dumper
from psycopg.pq import Format

from services.usage.domain.instant import to_us

# PostgreSQL counts time from 2000: this many microseconds less than since 1970.
SHIFT: Final = to_us(datetime(2000, 1, 1, tzinfo=UTC))

COPY_HEADER: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
COPY_TRAILER: Final = b"\xff\xff"
NULL: Final = b"\xff\xff\xff\xff"

_int32: Final = struct.Struct(">i")
_int64: Final = struct.Struct(">q")
_array: Final = struct.Struct(">iiiii")
# To look a size up takes half as long as to pack it.
_SIZES_KNOWN: Final = 1024
_SIZES: Final = tuple(_int32.pack(size) for size in range(_SIZES_KNOWN))
_JSONB_SIZES: Final = tuple(size + b"\x01" for size in _SIZES)


class Int8Array(bytes):
    """A `bigint[]` parameter."""


class UuidArray(bytes):
    """A `uuid[]` parameter."""


class TimeArray(bytes):
    """A `timestamptz[]` parameter."""


class _Ready(Dumper):
    format = Format.BINARY

    def dump(self, obj: bytes) -> bytes:
        return bytes(obj)


class _Int8Dumper(_Ready):
    oid = 1016


class _UuidDumper(_Ready):
    oid = 2951


class _TimeDumper(_Ready):
    oid = 1185


def prepare(conn: psycopg.Connection[Any]) -> None:
    """Let a connection take the array parameters of this module."""
    conn.adapters.register_dumper(Int8Array, _Int8Dumper)
    conn.adapters.register_dumper(UuidArray, _UuidDumper)
    conn.adapters.register_dumper(TimeArray, _TimeDumper)


def int8(number: int) -> bytes:
    """Return a bigint. The bytes of numbers that are not negative sort as the numbers do."""
    return _int64.pack(number)


def number(data: bytes) -> int:
    """Return the bigint that `int8` packed."""
    return int.from_bytes(data, "big", signed=True)


def time(microseconds: int) -> bytes:
    """Return a timestamptz of microseconds since 1970."""
    return _int64.pack(microseconds - SHIFT)


def int8_array(items: Sequence[bytes]) -> Int8Array:
    """Return an array of what `int8` returned."""
    return Int8Array(_fixed(items, 20, 8))


def uuid_array(items: Sequence[bytes]) -> UuidArray:
    """Return an array of 16-byte values."""
    return UuidArray(_fixed(items, 2950, 16))


def time_array(microseconds: Sequence[int]) -> TimeArray:
    """Return an array of timestamptz, of microseconds since 1970."""
    packed = struct.pack(f">{len(microseconds)}q", *[each - SHIFT for each in microseconds])
    return TimeArray(_fixed([packed[place : place + 8] for place in range(0, len(packed), 8)], 1184, 8))


def field(data: bytes) -> bytes:
    """Return a COPY field; NULL for an empty value."""
    return text(data) if data else NULL


def text(data: bytes) -> bytes:
    """Return a COPY field of a text, which may be empty."""
    size = len(data)
    return (_SIZES[size] if size < _SIZES_KNOWN else _int32.pack(size)) + data


def jsonb(data: bytes) -> bytes:
    """Return a COPY field of a jsonb document; NULL for an empty one."""
    if not data:
        return NULL
    size = len(data) + 1
    return (_JSONB_SIZES[size] if size < _SIZES_KNOWN else _int32.pack(size) + b"\x01") + data


class Texts(dict[bytes, bytes]):
    """What `text` returns, made once for texts that recur."""

    def __missing__(self, data: bytes) -> bytes:
        """Make and remember a field."""
        made = self[data] = text(data)
        return made


def rows(cursor: psycopg.Cursor[Any], width: int) -> Iterable[tuple[bytes, ...]]:
    """Yield a binary result's rows without decoding them."""
    result = cursor.pgresult
    if result is None:
        return
    for row in range(result.ntuples):
        yield tuple(result.get_value(row, column) or b"" for column in range(width))


def _fixed(items: Sequence[bytes], element_oid: int, width: int) -> bytes:
    if not items:
        return _int32.pack(0) + _int32.pack(0) + _int32.pack(element_oid)
    size = _int32.pack(width)
    return _array.pack(1, 0, element_oid, len(items), 1) + size + size.join(items)
