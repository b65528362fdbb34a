"""An HTTP request into the message of its binding, after `google.api.http`: path, then query or body."""

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qsl

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from gateway import descriptors, json_text
from gateway.contract import Binding
from gateway.json_reader import Reader
from services.kit.errors import InvalidArgument

_MAX_PARAMETERS: Final = 1_000
_IDEMPOTENCY_KEY: Final = re.compile(r"[\x21-\x7e]{1,256}")
_NUMBER: Final = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_SCALAR_MESSAGES: Final = {"google.type.Decimal", "google.protobuf.Timestamp"}


def read_request(
    binding: Binding, path: Mapping[str, bytes], query: bytes, body: bytes, idempotency_key: str | None
) -> Message:
    """Return the request that the HTTP request stands for.

    Args:
        binding: what was called.
        path: the path's variables, percent-decoded.
        query: the query string as it was sent.
        body: the body; empty stands for no body, and for that of a stream.
        idempotency_key: the header `Idempotency-Key`, the same as the field `request_id`.

    Raises:
        InvalidArgument: names every field that is wrong, by its path in the HTTP request.
    """
    message = binding.method.request()
    reader = Reader()
    _read_body(reader, binding, body, message)
    _read_path(reader, path, message)
    _read_query(reader, binding, path, query, message)
    reader.finish()
    if idempotency_key is not None and binding.takes_request_id:
        _set_request_id(message, idempotency_key)
    return message


def _read_body(reader: Reader, binding: Binding, body: bytes, message: Message) -> None:
    if binding.is_stream:
        return
    if not binding.body:
        if body:
            raise InvalidArgument(f"{binding.verb} {binding.template.text} takes no body", reason="BODY_NOT_ALLOWED")
        return
    if not body and binding.body == "*":
        return
    if not body:
        raise InvalidArgument("the body is empty; send a JSON object", reason="BODY_REQUIRED")
    value = json_text.parse(body)
    if not isinstance(value, dict):
        raise InvalidArgument("the body is not a JSON object", reason="WRONG_TYPE")
    if binding.body == "*":
        reader.read_message(value, message)
        return
    resource = getattr(message, binding.body)
    resource.SetInParent()
    wrapper = descriptors.of(message).fields_by_name[binding.body]
    if value.keys() & {wrapper.name, wrapper.json_name} - descriptors.fields_by_json_name(resource.DESCRIPTOR).keys():
        reader.fault("UNKNOWN_FIELD", wrapper.name, f"the body is the {wrapper.name} itself: send its fields bare")
        return
    reader.read_message(value, resource)


def _read_path(reader: Reader, path: Mapping[str, bytes], message: Message) -> None:
    for name, raw in path.items():
        given = getattr(message, name)
        field = descriptors.of(message).fields_by_name[name]
        text = _utf8(raw)
        if text is None:
            reader.fault("INVALID_UTF8", name, "is not UTF-8 in the path")
            continue
        reader.read_field(_from_text(text, field), message, field, name)
        if given not in {field.default_value, getattr(message, name)}:
            reader.fault("GIVEN_TWICE", name, f"the path says {json_text.shown(text)}, the body something else")


def _read_query(reader: Reader, binding: Binding, path: Mapping[str, bytes], query: bytes, message: Message) -> None:
    for name, values in _parameters(query).items():
        if binding.body == "*":
            reader.fault("UNKNOWN_FIELD", json_text.shown(name)[1:-1], "send it in the body: no query is read here")
            continue
        found = _find(reader, message, name)
        if found is None:
            continue
        target, field, where = found
        if where in path or where.split(".")[0] == binding.body:
            reader.fault("GIVEN_TWICE", where, "belongs in the path" if where in path else "belongs in the body")
        elif field.is_repeated:
            reader.read_field([_from_text(value, field) for value in values], target, field, where)
        elif len(values) > 1:
            reader.fault("GIVEN_TWICE", where, f"is given {len(values)} times; send it once")
        else:
            reader.read_field(_from_text(values[0], field), target, field, where)


def _parameters(query: bytes) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    try:
        pairs = parse_qsl(
            query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_MAX_PARAMETERS
        )
    except UnicodeDecodeError:
        raise InvalidArgument(
            "the query is not UTF-8; percent-encode each parameter as UTF-8", reason="INVALID_UTF8"
        ) from None
    except ValueError:
        raise InvalidArgument(
            f"the query has more than {_MAX_PARAMETERS} parameters", reason="TOO_MANY_PARAMETERS"
        ) from None
    for name, value in pairs:
        found.setdefault(name, []).append(value)
    return found


def _find(reader: Reader, message: Message, name: str) -> tuple[Message, FieldDescriptor, str] | None:
    """Follow `a.b.c` to the message that holds the last field. Faults are noted."""
    *parents, last = name.split(".")
    where: list[str] = []
    for part in parents:
        field = _field(reader, descriptors.of(message), part, ".".join(where))
        if field is None:
            return None
        where.append(field.name)
        if field.message_type is None or field.is_repeated or is_leaf(field):
            reader.fault("UNKNOWN_FIELD", ".".join(where), "has no fields of its own")
            return None
        message = getattr(message, field.name)
    field = _field(reader, descriptors.of(message), last, ".".join(where))
    if field is None:
        return None
    where.append(field.name)
    if not is_leaf(field):
        reader.fault("WRONG_TYPE", ".".join(where), "cannot be sent in the query; name one of its fields")
        return None
    return message, field, ".".join(where)


def _field(reader: Reader, descriptor: Descriptor, name: str, path: str) -> FieldDescriptor | None:
    field = descriptors.fields_by_json_name(descriptor).get(name)
    if field is None:
        reader.unknown(descriptor, name, path)
    return field


def is_leaf(field: FieldDescriptor) -> bool:
    """Whether a query can carry the field itself, as text."""
    return field.message_type is None or field.message_type.full_name in _SCALAR_MESSAGES


def _from_text(text: str, field: FieldDescriptor) -> object:
    """Return text of the path or the query as the JSON value that it stands for."""
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL and text in {"true", "false"}:
        return text == "true"
    is_real = field.cpp_type in {FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT}
    if is_real and _NUMBER.fullmatch(text):
        return float(text)
    return text


def _utf8(raw: bytes) -> str | None:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _set_request_id(message: Message, header: str) -> None:
    # The IETF draft writes the key as a quoted string, most programs write it bare.
    key = header[1:-1] if len(header) > 1 and header[0] == header[-1] == '"' else header
    if not _IDEMPOTENCY_KEY.fullmatch(key):
        raise InvalidArgument.at("Idempotency-Key", "is not 1 to 256 printable ASCII characters without spaces")
    given = getattr(message, "request_id")  # noqa: B009 - the field is known by the contract only
    if given not in {"", key}:
        raise InvalidArgument.at(
            "request_id", "differs from the header Idempotency-Key; send one of them", reason="GIVEN_TWICE"
        )
    setattr(message, "request_id", key)  # noqa: B010 - likewise
