"""A meter: how the events of one type become a quantity."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import ROUND_HALF_UP, Context, Decimal
from enum import StrEnum
from typing import Final, NamedTuple
from uuid import UUID

from services.kit.errors import InvalidArgument
from services.kit.money import plain
from services.usage.domain.event import MAX_TEXT_BYTES

_ID: Final = re.compile(r"[a-z][a-z0-9_.-]{0,62}")
# What is a number in an attribute: anything else matches no comparison.
NUMBER: Final = r"[+-]?[0-9]{1,40}([.][0-9]{1,40})?"
_NUMBER: Final = re.compile(NUMBER)
_MAX_UNIT_BYTES: Final = 64
_MAX_DESCRIPTION_BYTES: Final = 1024
_MAX_FILTERS: Final = 16
_MAX_VALUES: Final = 100
_MAX_GROUP_BY: Final = 8
# The default context would round sums to 28 digits.
_EXACT: Final = Context(prec=100)
_AVERAGE_PLACES: Final = Decimal("1e-12")


class Aggregation(StrEnum):
    """How a meter makes one value of many events."""

    COUNT = "COUNT"
    SUM = "SUM"
    MAX = "MAX"
    MIN = "MIN"
    AVG = "AVG"
    UNIQUE = "UNIQUE"
    LATEST = "LATEST"


class Operator(StrEnum):
    """What a filter asks of an attribute. The last four compare numbers."""

    EQUALS = "EQUALS"
    IN = "IN"
    EXISTS = "EXISTS"
    LESS = "LESS"
    LESS_OR_EQUAL = "LESS_OR_EQUAL"
    GREATER = "GREATER"
    GREATER_OR_EQUAL = "GREATER_OR_EQUAL"


_COMPARISONS: Final = {
    Operator.LESS: "<",
    Operator.LESS_OR_EQUAL: "<=",
    Operator.GREATER: ">",
    Operator.GREATER_OR_EQUAL: ">=",
}


@dataclass(frozen=True)
class Filter:
    """A condition on an event's attribute. An event without the attribute does not match.

    Attributes:
        attribute: its name.
        operator: what is asked.
        values: none for EXISTS, at least one for IN, one otherwise; of comparisons a number.
    """

    attribute: str
    operator: Operator
    values: tuple[str, ...] = ()

    def check(self, at: str) -> None:
        """Check.

        Args:
            at: the path of the filter.

        Raises:
            InvalidArgument: names the field.
        """
        _check_text(self.attribute, f"{at}.attribute", MAX_TEXT_BYTES)
        most = {Operator.EXISTS: 0, Operator.IN: _MAX_VALUES}.get(self.operator, 1)
        least = min(most, 1)
        if not least <= len(self.values) <= most:
            wanted = str(most) if least == most else f"{least} to {most}"
            raise InvalidArgument.at(
                f"{at}.values", f"has {len(self.values)} values; send {wanted} with {self.operator.value}"
            )
        for index, value in enumerate(self.values):
            size = len(value.encode())
            if size > MAX_TEXT_BYTES or "\0" in value:
                raise InvalidArgument.at(
                    f"{at}.values[{index}]", f"has {size} bytes; send at most {MAX_TEXT_BYTES}, without NUL"
                )
            if self.operator in _COMPARISONS and not _NUMBER.fullmatch(value):
                raise InvalidArgument.at(
                    f"{at}.values[{index}]",
                    f"{value[:80]!r} is no plain number of at most 40 digits on each side of the point",
                    reason="NOT_A_NUMBER",
                )

    def path(self) -> str:
        """Return the condition as an SQL/JSON path on the object of attributes."""
        name = f"$.{_quoted(self.attribute)}"
        if self.operator is Operator.EXISTS:
            return f"exists({name})"
        if self.operator in _COMPARISONS:
            number = plain(Decimal(self.values[0]))
            return f'({name} like_regex "^{NUMBER}$" && {name}.number() {_COMPARISONS[self.operator]} {number})'
        return f"({' || '.join(f'{name} == {_quoted(value)}' for value in self.values)})"


@dataclass(frozen=True)
class Meter:
    """A meter.

    Attributes:
        id: chosen by the user.
        event_type: of the events that it counts.
        aggregation: how.
        quantity: the name in the events' quantities; empty for COUNT and UNIQUE.
        attribute: of UNIQUE, whose values are counted; empty for the others.
        filters: all must hold.
        group_by: attributes by whose values totals are kept apart.
        unit: for people.
        description: for people.
        count_from: of the events stored before it was made, it counts those of this time or later; None for none.
        create_time: None before it is stored.
        archive_time: since when it counts nothing more; None while it counts.
    """

    id: str
    event_type: str
    aggregation: Aggregation
    quantity: str = ""
    unit: str = ""
    create_time: datetime | None = None
    attribute: str = ""
    filters: tuple[Filter, ...] = ()
    group_by: tuple[str, ...] = ()
    description: str = ""
    count_from: datetime | None = None
    archive_time: datetime | None = None

    def __post_init__(self) -> None:
        """Check.

        Raises:
            InvalidArgument: names the field.
        """
        check_meter_id(self.id, "meter.id")
        _check_text(self.event_type, "meter.event_type", MAX_TEXT_BYTES)
        takes = self.aggregation
        _check_name(self.quantity, "meter.quantity", takes, takes not in {Aggregation.COUNT, Aggregation.UNIQUE})
        _check_name(self.attribute, "meter.attribute", takes, takes is Aggregation.UNIQUE)
        if len(self.filters) > _MAX_FILTERS:
            raise InvalidArgument.at("meter.filters", f"has {len(self.filters)}; send at most {_MAX_FILTERS}")
        for index, each in enumerate(self.filters):
            each.check(f"meter.filters[{index}]")
        if len(self.group_by) > _MAX_GROUP_BY:
            raise InvalidArgument.at("meter.group_by", f"has {len(self.group_by)}; send at most {_MAX_GROUP_BY}")
        for index, name in enumerate(self.group_by):
            _check_text(name, f"meter.group_by[{index}]", MAX_TEXT_BYTES)
            if name in self.group_by[:index]:
                raise InvalidArgument.at(f"meter.group_by[{index}]", f"{name[:80]!r} is there twice")
        check_display(self.unit, self.description)

    def same_definition(self, other: "Meter") -> bool:
        """Say whether this one, which is asked for, counts the same in the same way as another."""
        return self.definition == other.definition and self.count_from in (None, other.count_from)

    @property
    def path(self) -> str | None:
        """All filters as one SQL/JSON path; None without any."""
        return " && ".join(each.path() for each in self.filters) or None

    @property
    def definition(self) -> tuple[object, ...]:
        """What never changes."""
        how = (self.aggregation, self.quantity, self.attribute, self.filters, self.group_by)
        return (self.id, self.event_type, *how)


class Latest(NamedTuple):
    """The latest event by time, then by id; values decide between events of two sources that share both."""

    time: datetime
    id: str
    value: Decimal


@dataclass(frozen=True)
class State:
    """What a meter knows of some events. States of disjoint sets of events merge by adding.

    Attributes:
        count: how many events.
        sum: of the quantity, for SUM and AVG.
        min: for MIN.
        max: for MAX.
        latest: for LATEST.
        values: digests of the attribute's values, for UNIQUE.
    """

    count: int = 0
    sum: Decimal = Decimal(0)
    min: Decimal | None = None
    max: Decimal | None = None
    latest: Latest | None = None
    values: frozenset[UUID] = field(default_factory=frozenset)

    @classmethod
    def empty(cls) -> "State":
        """Return what is known of no events."""
        return cls()

    def __add__(self, other: "State") -> "State":
        return State(
            self.count + other.count,
            _EXACT.add(self.sum, other.sum),
            min((each for each in (self.min, other.min) if each is not None), default=None),
            max((each for each in (self.max, other.max) if each is not None), default=None),
            max((each for each in (self.latest, other.latest) if each is not None), default=None),
            self.values | other.values,
        )

    def value(self, aggregation: Aggregation) -> Decimal:
        """Return the meter's value; 0 of no events. An average is rounded to 12 decimals, half up."""
        found = {
            Aggregation.COUNT: Decimal(self.count),
            Aggregation.SUM: self.sum,
            Aggregation.MAX: self.max,
            Aggregation.MIN: self.min,
            Aggregation.AVG: self._average,
            Aggregation.UNIQUE: Decimal(len(self.values)),
            Aggregation.LATEST: self.latest.value if self.latest else None,
        }[aggregation]
        return Decimal(0) if found is None else found

    @property
    def _average(self) -> Decimal | None:
        if not self.count:
            return None
        exact = _EXACT.divide(self.sum, Decimal(self.count))
        return exact.quantize(_AVERAGE_PLACES, rounding=ROUND_HALF_UP, context=_EXACT)


def check_meter_id(text: str, field: str) -> None:
    """Check a meter's id.

    Raises:
        InvalidArgument: a lower-case letter, then at most 62 of a-z, 0-9, `_`, `-`, `.` are allowed.
    """
    if not _ID.fullmatch(text):
        raise InvalidArgument.at(
            field, f"{text[:80]!r} is no meter id: a lower-case letter, then at most 62 of a-z, 0-9, _, -, ."
        )


def check_display(unit: str, description: str) -> None:
    """Check what people see of a meter; either may be empty.

    Raises:
        InvalidArgument: above 64 or 1,024 bytes, or with a NUL.
    """
    if unit:
        _check_text(unit, "meter.unit", _MAX_UNIT_BYTES)
    if description:
        _check_text(description, "meter.description", _MAX_DESCRIPTION_BYTES)


def check_groups(names: Sequence[str], meter: Meter, field: str) -> None:
    """Check attributes by which a meter's totals are asked for.

    Raises:
        InvalidArgument: the meter's totals are not kept apart by it, or it is there twice.
    """
    for index, name in enumerate(names):
        if name not in meter.group_by:
            known = ", ".join(meter.group_by) or "none"
            raise InvalidArgument.at(
                f"{field}[{index}]", f"{name[:80]!r} is no group-by attribute of meter {meter.id!r}; it has {known}"
            )
        if name in names[:index]:
            raise InvalidArgument.at(f"{field}[{index}]", f"{name[:80]!r} is there twice")


def _check_name(name: str, field: str, aggregation: Aggregation, is_needed: bool) -> None:  # noqa: FBT001 - by itself
    if is_needed:
        _check_text(name, field, MAX_TEXT_BYTES)
    elif name:
        raise InvalidArgument.at(field, f"{aggregation.value} takes none; leave {name[:80]!r} out")


def _check_text(text: str, field: str, limit: int) -> None:
    size = len(text.encode())
    if not 0 < size <= limit or "\0" in text:
        raise InvalidArgument.at(field, f"has {size} bytes; send 1 to {limit}, without NUL")


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
