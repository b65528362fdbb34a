from decimal import Decimal

import pytest
from google.type import money_pb2
from hypothesis import given
from hypothesis import strategies as st

from services.kit.errors import InvalidArgument
from services.kit.money import (
    Money,
    allocate,
    exponent,
    money_from_proto,
    money_to_proto,
    parse_quantity,
    plain,
    quantize,
)


@pytest.mark.parametrize(("currency", "digits"), [("INR", 2), ("USD", 2), ("JPY", 0), ("KWD", 3), ("CLF", 4)])
def test_a_currency_has_the_minor_units_of_iso_4217(currency: str, digits: int) -> None:
    assert exponent(currency) == digits


@pytest.mark.parametrize("currency", ["XAU", "XXX", "ZZZ", "inr", ""])
def test_what_is_no_billable_currency_is_refused_by_name(currency: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        exponent(currency)
    assert refused.value.violations[0].field == "currency"


@pytest.mark.parametrize(
    ("amount", "rounded"),
    # Half away from zero, on both sides of it.
    [("0.005", "0.01"), ("-0.005", "-0.01"), ("0.0049", "0.00"), ("2.675", "2.68"), ("1.115", "1.12")],
)
def test_amounts_round_half_away_from_zero(amount: str, rounded: str) -> None:
    assert Money(Decimal(amount), "INR").rounded() == Money(Decimal(rounded), "INR")


def test_amounts_longer_than_the_default_precision_are_not_cut() -> None:
    # 28 digits are the decimal module's default; this amount has 30.
    assert quantize(Decimal("1234567890123456789012345678.905"), 2) == Decimal("1234567890123456789012345678.91")


def test_currencies_do_not_mix() -> None:
    with pytest.raises(ValueError, match="INR and USD"):
        Money(Decimal(1), "INR") + Money(Decimal(1), "USD")


@given(
    cents=st.integers(-(10**12), 10**12),
    weights=st.lists(st.decimals(0, 10**6, places=3), min_size=1, max_size=20).filter(any),
)
def test_allocated_parts_add_up_to_the_whole(cents: int, weights: list[Decimal]) -> None:
    total = Money(Decimal(cents).scaleb(-2), "INR")
    parts = allocate(total, weights)
    assert sum((part.amount for part in parts), Decimal(0)) == total.amount
    assert len(parts) == len(weights)


def test_the_remainder_goes_to_the_largest_fractions() -> None:
    # 100.00 by thirds is 33.333… each: one cent remains and goes to the first of the equal fractions.
    parts = allocate(Money(Decimal("100.00"), "INR"), [Decimal(1)] * 3)
    assert [part.amount for part in parts] == [Decimal("33.34"), Decimal("33.33"), Decimal("33.33")]


@given(st.decimals(-(10**15), 10**15, places=2))
def test_money_survives_the_wire(amount: Decimal) -> None:
    money = Money(amount, "INR")
    assert money_from_proto(money_to_proto(money), "amount") == money


@pytest.mark.parametrize(
    ("units", "nanos", "currency"),
    [(1, -10_000_000, "INR"), (1, 1_000_000_000, "INR"), (1, 5_000_000, "INR"), (1, 10_000_000, "JPY"), (1, 0, "ABC")],
)
def test_money_that_is_no_amount_is_refused(units: int, nanos: int, currency: str) -> None:
    with pytest.raises(InvalidArgument):
        money_from_proto(money_pb2.Money(currency_code=currency, units=units, nanos=nanos), "amount")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("-1", "NEGATIVE"),
        ("NaN", "NOT_A_NUMBER"),
        ("Infinity", "NOT_A_NUMBER"),
        ("1_000", "NOT_A_NUMBER"),
        (" 1", "NOT_A_NUMBER"),
        ("", "NOT_A_NUMBER"),
        ("١", "NOT_A_NUMBER"),  # an Arabic digit: Decimal itself would take it
        ("1" * 29, "TOO_MANY_DIGITS"),
        ("1e28", "TOO_MANY_DIGITS"),
        ("1e-13", "TOO_MANY_DECIMALS"),
        ("0." + "1" * 13, "TOO_MANY_DECIMALS"),
        ("1e999999999", "TOO_MANY_DIGITS"),
    ],
)
def test_what_is_no_quantity_is_refused_with_its_field(text: str, reason: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        parse_quantity(text, "quantities.bytes")
    assert refused.value.reason == reason
    assert refused.value.violations[0].field == "quantities.bytes"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("1.0", "1"),
        ("1e3", "1000"),
        ("0.000000000001", "0.000000000001"),
        ("1" * 28, "1" * 28),
        ("0e-50", "0"),
        ("-0", "0"),
    ],
)
def test_quantities_are_read_exactly(text: str, shown: str) -> None:
    assert plain(parse_quantity(text, "q")) == shown
