"""Money and quantities: Decimal inside, `google.type` on the wire, one place for rounding.

Amounts are rounded once, at the invoice line, by the currency's exponent (ISO 4217), half away from zero.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_DOWN, ROUND_HALF_UP, Context, Decimal, InvalidOperation, localcontext
from functools import cache
from typing import Final

from google.type import decimal_pb2, money_pb2
from iso4217 import Currency

from services.kit.errors import InvalidArgument

MAX_DIGITS: Final = 28
MAX_SCALE: Final = 12
_NANO: Final = Decimal(10) ** 9
_MAX_UNITS: Final = 10**18 - 1

# Products of two 28-digit numbers are exact in 60 digits; the default context of 28 would round them silently.
_EXACT: Final = Context(prec=60)


@cache
def exponent(currency: str) -> int:
    """Return how many decimal places the currency's smallest unit has (ISO 4217): INR 2, JPY 0, KWD 3.

    Raises:
        InvalidArgument: not a currency that can be billed (unknown, or a metal or fund without an exponent).
    """
    try:
        digits: int | None = Currency(currency).exponent
    except ValueError:
        digits = None
    if digits is None:
        raise InvalidArgument.at(
            "currency", f"{currency!r} is not an ISO 4217 currency with minor units; use one such as INR"
        )
    return digits


@dataclass(frozen=True)
class Money:
    """An amount in a currency. `amount` may be unrounded; `rounded()` gives what can be paid."""

    amount: Decimal
    currency: str

    def rounded(self) -> "Money":
        """Round to the currency's exponent, half away from zero (ROUND_HALF_UP in decimal's terms)."""
        return Money(quantize(self.amount, exponent(self.currency)), self.currency)

    def __add__(self, other: "Money") -> "Money":
        self._same(other)
        return Money(self.amount + other.amount, self.currency)

    def __sub__(self, other: "Money") -> "Money":
        self._same(other)
        return Money(self.amount - other.amount, self.currency)

    def __neg__(self) -> "Money":
        return Money(-self.amount, self.currency)

    def _same(self, other: "Money") -> None:
        if self.currency != other.currency:
            raise ValueError(f"{self.currency} and {other.currency} do not add up")

    def __str__(self) -> str:
        return f"{self.currency} {self.amount:,f}"


def quantize(amount: Decimal, digits: int) -> Decimal:
    """Round to `digits` decimal places, half away from zero."""
    with localcontext(_EXACT):
        return amount.quantize(Decimal(1).scaleb(-digits), rounding=ROUND_HALF_UP)


def allocate(total: Money, weights: Sequence[Decimal]) -> list[Money]:
    """Split a rounded total by weights so that the parts add up to it exactly (largest remainder first).

    Raises:
        ValueError: no weights, a negative one, or all zero.
    """
    whole = sum(weights, Decimal(0))
    if not weights or min(weights) < 0 or whole == 0:
        raise ValueError("weights must be zero or more, and not all zero")
    unit = Decimal(1).scaleb(-exponent(total.currency))
    with localcontext(_EXACT):
        exact = [total.amount * weight / whole for weight in weights]
        parts = [part.quantize(unit, rounding=ROUND_DOWN) for part in exact]
        missing = int((total.amount - sum(parts, Decimal(0))) / unit)
        by_remainder = sorted(range(len(parts)), key=lambda i: (-abs(exact[i] - parts[i]), i))
        for i in by_remainder[: abs(missing)]:
            parts[i] += unit if missing > 0 else -unit
    return [Money(part, total.currency) for part in parts]


def plain(number: Decimal) -> str:
    """Write a number without exponent or trailing zeros: `1E+3` as `1000`, `1.50` as `1.5`, `-0` as `0`."""
    text = f"{number:f}"
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text in {"-0", ""} else text


def parse_quantity(text: str, field: str) -> Decimal:
    """Read a quantity or unit price from its string.

    Args:
        text: plain or exponent notation, at most 28 significant digits of which 12 behind the point, not negative.
        field: the path to name in the error.

    Raises:
        InvalidArgument: not such a number.
    """
    try:
        number = Decimal(text) if len(text) <= 64 and text.isascii() and "_" not in text else None  # noqa: PLR2004 - no 28-digit number is longer
    except InvalidOperation:
        number = None
    if number is None or text != text.strip():
        raise InvalidArgument.at(
            field, f'{text[:64]!r} is not a decimal number; send a string such as "12.5"', reason="NOT_A_NUMBER"
        )
    if not number.is_finite():
        raise InvalidArgument.at(field, f"{text} is not finite; send a number", reason="NOT_A_NUMBER")
    if number < 0:
        raise InvalidArgument.at(field, f"{text} is negative; the least is 0", reason="NEGATIVE")
    if number == 0:
        return Decimal(0)
    scale, digits = _scale_and_digits(number)
    if digits > MAX_DIGITS:
        raise InvalidArgument.at(
            field, f"{text} has {digits} digits; at most {MAX_DIGITS} are kept", reason="TOO_MANY_DIGITS"
        )
    if scale > MAX_SCALE:
        raise InvalidArgument.at(
            field, f"{text} has {scale} decimals; at most {MAX_SCALE} are kept", reason="TOO_MANY_DECIMALS"
        )
    return number


def _scale_and_digits(number: Decimal) -> tuple[int, int]:
    """Return decimals and digits of the plain notation without needless zeros."""
    _, digits, exponent_ = number.as_tuple()
    places, needed = int(exponent_), len(digits)
    while needed and digits[needed - 1] == 0:
        needed, places = needed - 1, places + 1
    return max(0, -places), max(needed + max(0, places), -places)


def decimal_to_proto(number: Decimal) -> decimal_pb2.Decimal:
    """Encode as `google.type.Decimal`, in plain notation."""
    return decimal_pb2.Decimal(value=plain(number))


def decimal_from_proto(message: decimal_pb2.Decimal, field: str) -> Decimal:
    """Decode a `google.type.Decimal`; see `parse_quantity`."""
    return parse_quantity(message.value, field)


def money_to_proto(money: Money) -> money_pb2.Money:
    """Encode as `google.type.Money` (whole units and nanos of the same sign).

    Raises:
        ValueError: finer than a nano: round first.
    """
    units = int(money.amount.to_integral_value(rounding=ROUND_DOWN))
    nanos = (money.amount - units) * _NANO
    if nanos != nanos.to_integral_value():
        raise ValueError(f"{money} has more than nine decimals")
    return money_pb2.Money(currency_code=money.currency, units=units, nanos=int(nanos))


def money_from_proto(message: money_pb2.Money, field: str) -> Money:
    """Decode a `google.type.Money`.

    Raises:
        InvalidArgument: unknown currency, nanos out of range or of the other sign, finer than the currency allows.
    """
    digits = exponent(message.currency_code)
    if abs(message.nanos) >= _NANO or message.units * message.nanos < 0 or abs(message.units) > _MAX_UNITS:
        raise InvalidArgument.at(field, f"units {message.units} and nanos {message.nanos} are no amount")
    amount = Decimal(message.units) + Decimal(message.nanos) / _NANO
    if amount != quantize(amount, digits):
        raise InvalidArgument.at(
            field, f"{plain(amount)} is finer than {message.currency_code} allows ({digits} decimals)"
        )
    return Money(quantize(amount, digits), message.currency_code)
