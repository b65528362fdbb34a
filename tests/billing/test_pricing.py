"""Prices. Expected numbers are worked out by hand beside them."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.billing.domain.plan import FlatFee, Graduated, PerUnit, Tier
from services.billing.domain.pricing import Price, price
from services.kit.money import exponent

REQUESTS = Graduated(
    meter="requests",
    included=Decimal(100),
    per=Decimal(1000),
    tiers=(Tier(Decimal(200), Decimal(40)), Tier(Decimal(400), Decimal(30)), Tier(None, Decimal(20))),
)
TRAFFIC = PerUnit(meter="bytes", unit_price=Decimal("8.50"), per=Decimal(10**9))


@pytest.mark.parametrize(
    ("quantity", "expected"),
    [
        ("0", "0"),
        ("99", "0"),
        ("100", "0"),  # all included
        ("101", "0.04"),  # 1 * 40 / 1,000
        ("200", "4"),  # 100 * 40 / 1,000
        ("201", "4.03"),  # 4 + 1 * 30 / 1,000
        ("400", "10"),  # 4 + 200 * 30 / 1,000
        ("401", "10.02"),  # 10 + 1 * 20 / 1,000
        ("482", "11.64"),  # 10 + 82 * 20 / 1,000
        ("1000000", "20002"),  # 10 + 999,600 * 20 / 1,000
        ("100.5", "0.02"),  # half a unit above: 0.5 * 40 / 1,000
    ],
)
def test_each_unit_costs_the_price_of_its_tier(quantity: str, expected: str) -> None:
    assert price(REQUESTS, Decimal(quantity)).precise_amount == Decimal(expected)


def test_tiers_say_what_each_contributed() -> None:
    tiers = price(REQUESTS, Decimal(450)).tiers
    assert [tier.start for tier in tiers] == [100, 200, 400]
    assert [tier.up_to for tier in tiers] == [200, 400, None]
    assert [tier.quantity for tier in tiers] == [100, 200, 50]
    assert [tier.precise_amount for tier in tiers] == [4, 6, 1]


def test_an_included_quantity_may_reach_over_whole_tiers() -> None:
    charge = Graduated("requests", REQUESTS.tiers, per=Decimal(1000), included=Decimal(300))
    # 301-400 at 30, 401-500 at 20: 100 * 30 / 1,000 + 100 * 20 / 1,000
    assert price(charge, Decimal(500)).precise_amount == Decimal(5)
    assert [tier.quantity for tier in price(charge, Decimal(500)).tiers] == [0, 100, 100]


@pytest.mark.parametrize(
    ("quantity", "precise", "rounded"),
    [
        ("3480555124", "29.584718554", "29.58"),  # 3.480555124 * 8.50
        ("65259072", "0.554702112", "0.55"),  # 0.065259072 * 8.50
        ("1000000000", "8.5", "8.50"),
        ("0", "0", "0.00"),
    ],
)
def test_traffic_costs_eight_and_a_half_rupees_a_gigabyte(quantity: str, precise: str, rounded: str) -> None:
    priced = price(TRAFFIC, Decimal(quantity))
    assert priced.precise_amount == Decimal(precise)
    assert str(priced.rounded(exponent("INR"))) == rounded


def test_units_within_the_included_ones_are_free() -> None:
    charge = PerUnit("requests", Decimal("0.5"), included=Decimal(10))
    assert [price(charge, Decimal(q)).precise_amount for q in (9, 10, 11)] == [0, 0, Decimal("0.5")]


def test_a_flat_fee_costs_the_same_whatever_was_used() -> None:
    assert price(FlatFee(Decimal("499.00")), Decimal(7)).precise_amount == Decimal("499.00")


@pytest.mark.parametrize(
    ("currency", "precise", "rounded"),
    [
        ("INR", "0.005", "0.01"),
        ("INR", "-0.005", "-0.01"),
        ("INR", "0.00499999", "0.00"),
        ("INR", "2.675", "2.68"),
        ("JPY", "1.5", "2"),
        ("JPY", "2.5", "3"),
        ("JPY", "-2.5", "-3"),
        ("KWD", "1.0005", "1.001"),
        ("KWD", "1.00049", "1.000"),
    ],
)
def test_amounts_are_rounded_half_away_from_zero_by_the_currency(currency: str, precise: str, rounded: str) -> None:
    assert str(Price(Decimal(precise)).rounded(exponent(currency))) == rounded


def test_a_third_is_cut_and_not_rounded_up() -> None:
    # 2 / 3 = 0.666…; 36 decimals are kept.
    assert price(PerUnit("requests", Decimal(2), per=Decimal(3)), Decimal(1)).precise_amount == Decimal("0." + "6" * 36)


def test_an_amount_just_below_the_half_stays_below_it() -> None:
    # 0.014999999999 / 3 = 0.004999999999666…: not 0.005, however many decimals are kept.
    assert str(price(PerUnit("requests", Decimal("0.014999999999"), per=Decimal(3)), Decimal(1)).rounded(2)) == "0.00"


def test_products_of_28_digits_are_exact() -> None:
    # (10^27 - 1)² = 10^54 - 2 * 10^27 + 1
    charge = PerUnit("requests", Decimal(10**27 - 1))
    assert price(charge, Decimal(10**27 - 1)).precise_amount == Decimal(10**54 - 2 * 10**27 + 1)


decimals = st.decimals(min_value=0, max_value=10**6, places=3, allow_nan=False, allow_infinity=False)


@st.composite
def graduated(draw: st.DrawFn) -> Graduated:
    bounds = sorted(draw(st.sets(st.integers(1, 10**6), max_size=5)))
    prices = draw(st.lists(decimals, min_size=len(bounds) + 1, max_size=len(bounds) + 1))
    tiers = tuple(Tier(Decimal(bound), unit_price) for bound, unit_price in zip(bounds, prices, strict=False))
    per = draw(st.sampled_from([1, 3, 7, 1000]))
    return Graduated("m", (*tiers, Tier(None, prices[-1])), per=Decimal(per), included=draw(decimals))


@given(graduated(), decimals, decimals)
def test_more_never_costs_less(charge: Graduated, one: Decimal, other: Decimal) -> None:
    less, more = sorted((one, other))
    assert price(charge, less).precise_amount <= price(charge, more).precise_amount


@given(graduated(), decimals)
def test_the_price_is_the_sum_over_the_pieces(charge: Graduated, quantity: Decimal) -> None:
    """Counted another way: walk from the included units to the quantity, bound by bound, in exact fractions."""
    expected, reached = Fraction(0), Fraction(charge.included)
    for tier in charge.tiers:
        end = Fraction(quantity) if tier.up_to is None else min(Fraction(quantity), Fraction(tier.up_to))
        if end > reached:
            expected += (end - reached) * Fraction(tier.unit_price)
            reached = end
    expected /= Fraction(charge.per)
    assert 0 <= expected - Fraction(price(charge, quantity).precise_amount) < Fraction(1, 10**36)


@given(graduated(), decimals)
def test_tier_quantities_add_up_to_what_is_charged(charge: Graduated, quantity: Decimal) -> None:
    tiers = price(charge, quantity).tiers
    assert sum(tier.quantity for tier in tiers) == max(Decimal(0), quantity - charge.included)
