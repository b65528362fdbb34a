"""A CloudEvent as a usage event.

`id`, `source`, `type` and `time` go one to one, `subject` names the customer, numbers in `data` are quantities, its
other scalars attributes, and so are extensions. A number stays the text that was sent: no digit of it is lost.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from google.protobuf.timestamp_pb2 import Timestamp

from gateway.errors import UnfitValue
from gateway.json_reader import Reader
from gateway.json_scalars import kind
from gateway.json_text import shown
from gateway.well_known import read_timestamp
from meterscope.usage.v1 import event_service_pb2 as pb
from services.kit.errors import InvalidArgument

SPEC_VERSION: Final = "1.0"
# What data is called that has no names of its own. No extension may be called so.
BARE: Final = "data"

_CORE: Final = {"id", "source", "type", "time", "subject", "specversion", "datacontenttype"}
_TRACING: Final = {"traceparent", "tracestate"}
_CUSTOMER_ID: Final = "cus_"
_MOST_DEPTH: Final = 16
_NAME: Final = re.compile(r"[a-z0-9]+")
_INTEGER: Final = re.compile(r"-?[0-9]{1,20}")
_TRACEPARENT: Final = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?P<trace_id>(?!0{32})[0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?"
)
# Control characters, surrogates that stand alone, and what Unicode says is no character.
_FORBIDDEN: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


class Number(str):
    """A number of JSON, as it was written."""

    __slots__ = ()


def read_event(attributes: Mapping[str, Any], data: Any, *, now: Timestamp, prefix: str = "") -> pb.Event:
    """Return the usage event that a CloudEvent stands for.

    Args:
        attributes: the context attributes, extensions included; None stands for one that is not set.
        data: JSON values with `Number` for numbers; None without any.
        now: when the event was received, for one that does not say when it happened.
        prefix: what stands before an attribute's name where the caller wrote it, such as `ce-`.

    Raises:
        InvalidArgument: names every field at fault.
    """
    reading = _Reading(attributes, prefix)
    reading.envelope(now)
    reading.data(data)
    reading.extensions()
    reading.reader.finish()
    return reading.event


class _Reading:
    """One event being read. Faults are noted in `reader`."""

    def __init__(self, attributes: Mapping[str, Any], prefix: str) -> None:
        self.event = pb.Event()
        self.reader = Reader()
        self._attributes = attributes
        self._prefix = prefix

    def envelope(self, now: Timestamp) -> None:
        """Read the attributes that the specification names."""
        version = self._text("specversion", f'missing; send "{SPEC_VERSION}"')
        if version not in {None, SPEC_VERSION}:
            self._fault(
                "UNSUPPORTED_SPECVERSION", "specversion", f'{shown(version)} is not understood; send "{SPEC_VERSION}"'
            )
        self.event.id = self._text("id", "missing; send 1 to 256 bytes, unique per source") or ""
        self.event.source = self._text("source", "missing; send where it happened, 1 to 256 bytes") or ""
        self.event.type = self._text("type", "missing; send what happened, 1 to 256 bytes") or ""
        subject = self._text("subject", "missing; send the customer's id (cus_…) or external key")
        if subject and subject.startswith(_CUSTOMER_ID):
            self.event.customer_id = subject
        elif subject:
            self.event.customer_key = subject
        if self._attributes.get("time") is None:
            self.event.time.CopyFrom(now)
        else:
            self._time()
        if self._attributes.get("traceparent") is not None:
            self._trace()

    def data(self, data: Any) -> None:
        """Read the data: numbers are quantities, other scalars attributes."""
        for name, value in self._leaves(data):
            if _SURROGATE.search(name) or (isinstance(value, str) and _SURROGATE.search(value)):
                self.reader.fault(
                    "WRONG_TYPE", _path(shown(name)[1:-1]), "is not valid Unicode: a surrogate stands alone"
                )
            elif name in self.event.quantities or name in self.event.attributes:
                self.reader.fault("GIVEN_TWICE", _path(name), "stands in data twice, once written with a dot")
            elif isinstance(value, Number):
                self.event.quantities[name].value = str(value)
            else:
                self.event.attributes[name] = value if isinstance(value, str) else str(value).lower()

    def extensions(self) -> None:
        """Read what the specification does not name, behind the data: a name that the data has gets `ce-` before it."""
        for name, value in self._attributes.items():
            if name in _CORE or name in _TRACING or value is None:
                continue
            if not _NAME.fullmatch(name) or name == BARE:
                self._fault("BAD_NAME", shown(name)[1:-1], "attributes are named by lower-case letters and digits only")
                continue
            text = self._canonical(name, value)
            if text is None:
                continue
            kept = f"ce-{name}" if name in self.event.attributes else name
            if kept in self.event.attributes:
                self._fault("GIVEN_TWICE", name, f"data has both {name} and {kept}; rename one of them")
            else:
                self.event.attributes[kept] = text

    def _canonical(self, name: str, value: Any) -> str | None:
        """Return an attribute of any type that the specification allows as text."""
        if isinstance(value, Number):
            if _INTEGER.fullmatch(value):
                return str(value)
            self._fault("WRONG_TYPE", name, f"{shown(value)[1:-1]} is no integer; send other numbers in data")
            return None
        return str(value).lower() if isinstance(value, bool) else self._text(name, "")

    def _text(self, name: str, missing: str) -> str | None:
        value = self._attributes.get(name)
        if isinstance(value, Number) or not isinstance(value, str | None):
            self._fault("WRONG_TYPE", name, f"{_kind(value)} is given; send a string")
        elif not value and missing:
            self._fault("MISSING", name, missing)
        elif value and (found := _FORBIDDEN.search(value)):
            self._fault(
                "BAD_CHARACTER", name, f"holds the character U+{ord(found[0]):04X}, which CloudEvents do not allow"
            )
        else:
            return value
        return None

    def _time(self) -> None:
        value = self._attributes["time"]
        try:
            # RFC 3339 allows `t` and `z`.
            read_timestamp(value.upper() if type(value) is str else value, self.event.time)
        except UnfitValue as error:
            self._fault("WRONG_TYPE", "time", str(error))

    def _trace(self) -> None:
        value = self._text("traceparent", "is empty; send it as W3C Trace Context writes it, or leave it out")
        if value is None:
            return
        match = _TRACEPARENT.fullmatch(value)
        if match is None:
            self._fault("BAD_TRACE_ID", "traceparent", f"{shown(value)} is none of W3C Trace Context")
        else:
            self.event.trace_id = match["trace_id"]

    def _leaves(self, value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
        """Walk the scalars of data; those of objects within by their path, `request.bytes`."""
        name = ".".join(path) or BARE
        if isinstance(value, dict):
            if len(path) >= _MOST_DEPTH:
                self.reader.fault("TOO_DEEP", _path(shown(name)[1:-1]), f"is nested deeper than {_MOST_DEPTH}")
                return
            for key, item in value.items():
                if key:
                    yield from self._leaves(item, (*path, key))
                else:
                    self.reader.fault("MISSING", _path(shown(name)[1:-1]), "has a field whose name is empty")
        elif isinstance(value, list):
            self.reader.fault(
                "WRONG_TYPE", _path(shown(name)[1:-1]), "an array cannot be metered; send objects, numbers and texts"
            )
        elif value is not None:
            yield name, value

    def _fault(self, reason: str, name: str, description: str) -> None:
        self.reader.fault(reason, f"{self._prefix}{name}", description)


def read_object(value: Any, *, now: Timestamp) -> pb.Event:
    """Return the usage event that a CloudEvent in JSON stands for.

    Raises:
        InvalidArgument: names every field at fault.
    """
    if not isinstance(value, dict):
        raise InvalidArgument(f"{_kind(value)} is given; send a CloudEvent, a JSON object", reason="WRONG_TYPE")
    attributes = {name: item for name, item in value.items() if name not in {"data", "data_base64"}}
    if value.get("data_base64") is not None:
        raise InvalidArgument.at(
            "data_base64", "binary data cannot be metered; send a JSON object in data", reason="BINARY_DATA"
        )
    data = value.get("data")
    content_type = attributes.get("datacontenttype")
    if content_type is not None and data is not None:
        if isinstance(content_type, Number) or not isinstance(content_type, str):
            raise InvalidArgument.at(
                "datacontenttype", f"{_kind(content_type)} is given; send a string", reason="WRONG_TYPE"
            )
        if not is_json(content_type):
            raise InvalidArgument.at(
                "datacontenttype",
                f"{shown(content_type)} cannot be metered; send JSON in UTF-8",
                reason="UNSUPPORTED_DATA",
            )
    return read_event(attributes, data, now=now)


def is_json(content_type: str) -> bool:
    """Whether a media type declares JSON in UTF-8: `*/json` or `*/*+json`."""
    media_type, _, parameters = content_type.lower().partition(";")
    subtype = media_type.strip().partition("/")[2]
    return (subtype == "json" or subtype.endswith("+json")) and is_utf8(parameters)


def is_utf8(parameters: str) -> bool:
    """Whether the parameters of a media type name no other encoding than UTF-8."""
    named = [each.strip().partition("=")[2] for each in parameters.lower().split(";") if "charset" in each]
    return all(name.strip().strip('"') in {"utf-8", "utf8", "us-ascii"} for name in named)


def _path(name: str) -> str:
    return name if name == BARE else f"{BARE}.{name}"


def _kind(value: Any) -> str:
    return "a number" if isinstance(value, Number) else kind(value)
