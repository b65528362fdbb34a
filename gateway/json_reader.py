"""Python values from JSON into messages: proto3 JSON, stricter where it guesses, friendlier where it is proto's own.

Names are taken in snake_case and lowerCamelCase, enum values with and without their prefix, a Decimal as a string, a
Money as `{"amount", "currency"}`. Every fault is collected with its path, so that a caller mends them all at once.
"""

import difflib
from collections.abc import Callable, Mapping
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from gateway import descriptors
from gateway.errors import UnfitValue
from gateway.json_scalars import kind, read_scalar
from gateway.json_text import shown
from gateway.well_known import read_decimal, read_money, read_other, read_timestamp
from services.kit.errors import FieldViolation, InvalidArgument

_MAX_FAULTS: Final = 50
_SPECIAL: Final[Mapping[str, Callable[[Any, Any], None]]] = {
    "google.type.Decimal": read_decimal,
    "google.type.Money": read_money,
    "google.protobuf.Timestamp": read_timestamp,
}


class Reader:
    """Reads one request. Ask `finish` before using the message."""

    def __init__(self) -> None:
        self._faults: list[tuple[str, FieldViolation]] = []

    def fault(self, reason: str, path: str, description: str) -> None:
        """Note what is wrong with a field. `reason` is UPPER_SNAKE_CASE."""
        if len(self._faults) < _MAX_FAULTS:
            self._faults.append((reason, FieldViolation(path, description)))

    def finish(self) -> None:
        """Raise InvalidArgument if anything was wrong: the first fault in words, all of them as violations."""
        if not self._faults:
            return
        reason, first = self._faults[0]
        more = f" (and {len(self._faults) - 1} more)" if len(self._faults) > 1 else ""
        where = f"{first.field}: " if first.field else ""
        raise InvalidArgument(
            f"{where}{first.description}{more}", reason=reason, violations=[violation for _, violation in self._faults]
        )

    def read_message(self, value: Any, message: Message, path: str = "") -> None:
        """Read a JSON value into an empty message at `path`."""
        descriptor = descriptors.of(message)
        name = descriptor.full_name
        special = _SPECIAL.get(name, read_other if name.startswith("google.protobuf.") else None)
        if special is not None:
            try:
                special(value, message)
            except UnfitValue as error:
                self.fault("WRONG_TYPE", path, str(error))
        elif isinstance(value, dict):
            self._read_object(value, message, descriptor, path)
        else:
            self.fault("WRONG_TYPE", path, f"{kind(value)} is given; send an object")

    def unknown(self, descriptor: Descriptor, name: str, path: str) -> None:
        """Note a field that is not there, with the one that was probably meant."""
        names = [field.name for field in descriptor.fields]
        close = difflib.get_close_matches(name[:64], names, n=1)
        if close:
            hint = f"did you mean `{close[0]}`?"
        else:
            hint = f"known are {', '.join(f'`{each}`' for each in names)}" if names else "there are no fields here"
        self.fault("UNKNOWN_FIELD", _below(path, shown(name)[1:-1]), f"there is no such field; {hint}")

    def read_field(self, value: Any, message: Message, field: FieldDescriptor, path: str) -> None:
        """Read a JSON value into a field. `null` leaves it absent."""
        if value is None:
            return
        try:
            entry = descriptors.map_entry(field)
            if entry is not None:
                self._read_map(value, getattr(message, field.name), entry, path)
            elif field.is_repeated:
                self._read_list(value, getattr(message, field.name), field, path)
            elif field.message_type is not None:
                submessage = getattr(message, field.name)
                submessage.SetInParent()
                self.read_message(value, submessage, path)
            else:
                setattr(message, field.name, read_scalar(value, field))
        except UnfitValue as error:
            self.fault("WRONG_TYPE", path, str(error))

    def _read_object(self, value: dict[str, Any], message: Message, descriptor: Descriptor, path: str) -> None:
        known = descriptors.fields_by_json_name(descriptor)
        given: dict[str, str] = {}
        for key, item in value.items():
            field = known.get(key)
            if field is None:
                self.unknown(descriptor, key, path)
            elif item is not None and self._is_first(field, key, path, given):
                self.read_field(item, message, field, _below(path, field.name))

    def _is_first(self, field: FieldDescriptor, key: str, path: str, given: dict[str, str]) -> bool:
        """Refuse a field under both its names, and two members of one oneof."""
        slot = field.containing_oneof.full_name if field.containing_oneof else field.full_name
        other = given.setdefault(slot, key)
        if other != key:
            self.fault("GIVEN_TWICE", _below(path, key), f"`{other}` is given as well; send one of them")
        return other == key

    def _read_map(self, value: Any, entries: Any, entry: tuple[FieldDescriptor, FieldDescriptor], path: str) -> None:
        if not isinstance(value, dict):
            raise UnfitValue(f"{kind(value)} is given; send an object")
        key_field, value_field = entry
        for key, item in value.items():
            where = _below(path, shown(key)[1:-1])
            try:
                read_key = read_scalar(key, key_field)
                if value_field.message_type is not None:
                    self.read_message(item, entries[read_key], where)
                else:
                    entries[read_key] = read_scalar(item, value_field)
            except UnfitValue as error:
                self.fault("WRONG_TYPE", where, str(error))

    def _read_list(self, value: Any, items: Any, field: FieldDescriptor, path: str) -> None:
        if not isinstance(value, list):
            raise UnfitValue(f"{kind(value)} is given; send an array")
        for index, item in enumerate(value):
            where = f"{path}[{index}]"
            try:
                if field.message_type is not None:
                    self.read_message(item, items.add(), where)
                else:
                    items.append(read_scalar(item, field))
            except UnfitValue as error:
                self.fault("WRONG_TYPE", where, str(error))


def _below(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
