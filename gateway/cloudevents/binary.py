"""Binary mode: the attributes are `ce-` headers, the body is the data."""

import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import unquote_to_bytes

from gateway.json_reader import Reader

PREFIX: Final = "ce-"

_PRINTABLE: Final = re.compile(rb"[\x20-\x7e\t]*")
_QUOTED: Final = re.compile(rb'"(?P<content>(?:[^"\\]|\\.)*)"')
_ESCAPE: Final = re.compile(rb"\\(.)")
_BROKEN_PERCENT: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")


def read_headers(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Return the attributes that the headers hold, by name without `ce-`. Empty if there are none.

    Args:
        headers: names in lower case with values, as ASGI has them.

    Raises:
        InvalidArgument: names every header at fault.
    """
    reader = Reader()
    found: dict[str, str] = {}
    for raw_name, raw_value in headers:
        header = raw_name.decode("latin-1")
        if not header.startswith(PREFIX):
            continue
        name = header.removeprefix(PREFIX)
        if name == "datacontenttype":
            reader.fault("GIVEN_TWICE", header, "in binary mode the Content-Type says it; leave this header out")
        elif name in found:
            reader.fault("GIVEN_TWICE", header, "is given twice; send it once")
        else:
            found[name] = _decoded(reader, header, raw_value)
    reader.finish()
    return found


def _decoded(reader: Reader, header: str, raw: bytes) -> str:
    value = raw.strip(b" \t")
    if not _PRINTABLE.fullmatch(value):
        reader.fault("BAD_CHARACTER", header, "holds bytes other than printable ASCII; percent-encode them as UTF-8")
        return ""
    quoted = _QUOTED.fullmatch(value)
    if quoted:
        value = _ESCAPE.sub(rb"\1", quoted["content"])
    if _BROKEN_PERCENT.search(value):
        reader.fault("BAD_PERCENT_ENCODING", header, "has a % without two hex digits; a percent sign is sent as %25")
        return ""
    try:
        return unquote_to_bytes(value).decode()
    except UnicodeDecodeError:
        reader.fault("INVALID_UTF8", header, "is not UTF-8 when its percent-encoding is undone")
        return ""
