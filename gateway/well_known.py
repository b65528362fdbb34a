"""The types of `google.type` and `google.protobuf` that JSON writes in a form of its own.

A Decimal is a string (`"12.50"`), because JSON numbers are read as doubles by most programs. A Money is
`{"amount": "12.50", "currency": "INR"}`. A Timestamp is RFC 3339 (`"2026-01-31T18:30:00Z"`).
"""

import re
from decimal import Decimal
from typing import Any, Final

from google.protobuf import json_format
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from google.type.decimal_pb2 import Decimal as DecimalMessage
from google.type.money_pb2 import Money as MoneyMessage

from gateway.errors import UnfitValue
from gateway.json_text import shown
from services.kit import money
from services.kit.errors import InvalidArgument

_AMOUNT: Final = re.compile(r"(?P<sign>-?)(?P<units>[0-9]{1,18})(?:\.(?P<fraction>[0-9]+))?")
_NANO_DIGITS: Final = 9
# protobuf's reader would take any two numbers for an offset, and times days away for what was meant.
_TIME: Final = re.compile(
    r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(?:\.\d{1,9})?(?:Z|[+-](?:[01]\d|2[0-3]):[0-5]\d)", re.ASCII
)


def read_decimal(value: Any, message: DecimalMessage) -> None:
    """Take a string; the service that gets it judges the number.

    Raises:
        UnfitValue: not a string.
    """
    if not isinstance(value, str):
        raise UnfitValue(f'{shown(value)} is not a decimal string; send one such as "12.5"')
    message.value = value


def read_money(value: Any, message: MoneyMessage) -> None:
    """Take `{"amount", "currency"}`, both strings. Up to nine decimals; the service knows the currency's own.

    Raises:
        UnfitValue: anything else.
    """
    form = 'send {"amount": "12.50", "currency": "INR"}'
    if not isinstance(value, dict):
        raise UnfitValue(f"{shown(value)} is not an amount; {form}")
    if set(value) != {"amount", "currency"}:
        raise UnfitValue(f"has the fields {shown(', '.join(sorted(value)))}; {form}")
    amount, currency = value["amount"], value["currency"]
    if not isinstance(currency, str):
        raise UnfitValue(f"the currency {shown(currency)} is not a string; {form}")
    match = _AMOUNT.fullmatch(amount) if isinstance(amount, str) else None
    if match is None:
        raise UnfitValue(f"the amount {shown(amount)} is not a decimal string of at most 18 whole digits; {form}")
    fraction = (match["fraction"] or "").rstrip("0")
    if len(fraction) > _NANO_DIGITS:
        raise UnfitValue(f"the amount {shown(amount)} has {len(fraction)} decimals; at most {_NANO_DIGITS} can be sent")
    sign = -1 if match["sign"] else 1
    message.currency_code = currency
    message.units = sign * int(match["units"])
    message.nanos = sign * int(fraction.ljust(_NANO_DIGITS, "0"))


def read_timestamp(value: Any, message: Timestamp) -> None:
    """Take RFC 3339 with an offset, years 1 to 9999.

    Raises:
        UnfitValue: anything else.
    """
    fault = f'{shown(value)} is not an RFC 3339 time; send one such as "2026-01-31T18:30:00Z"'
    if not isinstance(value, str) or _TIME.fullmatch(value) is None:
        raise UnfitValue(fault)
    try:
        message.FromJsonString(value)
    except (ValueError, OverflowError):
        raise UnfitValue(fault) from None


def read_other(value: Any, message: Message) -> None:
    """Take any other type of `google.protobuf` (Struct, Duration, wrappers, …) as proto3 JSON writes it.

    Raises:
        UnfitValue: not of the form.
    """
    try:
        json_format.ParseDict(value, message)
    except (json_format.Error, ValueError, TypeError) as error:
        raise UnfitValue(f"{shown(value)} is no {message.DESCRIPTOR.name}: {error}") from None


def write_decimal(message: DecimalMessage) -> str:
    """Return the number as it came; `0` where none did."""
    return message.value or "0"


def write_money(message: MoneyMessage) -> dict[str, str]:
    """Return amount and currency, with the currency's own number of decimals."""
    amount = Decimal(message.units) + Decimal(message.nanos).scaleb(-_NANO_DIGITS)
    text = money.plain(amount)
    try:
        digits = money.exponent(message.currency_code)
    except InvalidArgument:
        digits = 0
    whole, _, fraction = text.partition(".")
    fraction = fraction.ljust(digits, "0")
    return {"amount": f"{whole}.{fraction}" if fraction else whole, "currency": message.currency_code}


def write_timestamp(message: Timestamp) -> str:
    """Return RFC 3339 in UTC, with as many decimals as are needed."""
    return message.ToJsonString()
