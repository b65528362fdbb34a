"""Prices a quantity: exact products and sums first, one division last, and no rounding here but a cut.

An amount that does not end within 36 decimals is cut there, towards zero. The cut never changes what the amount rounds
to: halves of a currency's smallest unit lie on the grid of 36 decimals, so an amount is cut below one only if it was
below it.
"""

from dataclasses import dataclass
from decimal import ROUND_DOWN, Context, Decimal, localcontext
from typing import Final

from services.billing.domain.plan import Charge, FlatFee, Graduated, PerUnit
from services.kit.money import quantize

PRECISE_DECIMALS: Final = 36

# A 28-digit price times a total of as much as 40 digits, over `per` of as little as 1E-12, with 36 decimals kept.
_EXACT: Final = Context(prec=160, rounding=ROUND_DOWN)
_GRID: Final = Decimal(1).scaleb(-PRECISE_DECIMALS)


@dataclass(frozen=True)
class TierAmount:
    """What one tier contributed.

    Attributes:
        start: the units before the first one that the tier charges.
        up_to: the last unit of the tier; None on the last tier.
        quantity: the units charged in it.
        unit_price: the price of `per` units.
        precise_amount: before rounding.
    """

    start: Decimal
    up_to: Decimal | None
    quantity: Decimal
    unit_price: Decimal
    precise_amount: Decimal


@dataclass(frozen=True)
class Price:
    """A price before rounding, and what each tier contributed to it."""

    precise_amount: Decimal
    tiers: tuple[TierAmount, ...] = ()

    def rounded(self, exponent: int) -> Decimal:
        """Round once, half away from zero, to `exponent` decimals (ISO 4217)."""
        return quantize(self.precise_amount, exponent)


def price(charge: Charge, quantity: Decimal) -> Price:
    """Return what `quantity` units cost; a flat fee costs the same whatever the quantity.

    Formulas: comments of `FlatFee`, `PerUnitCharge`, `GraduatedCharge` in catalog_service.proto.
    """
    match charge:
        case FlatFee(amount):
            return Price(amount)
        case PerUnit():
            with localcontext(_EXACT):
                charged = max(Decimal(0), quantity - charge.included)
                return Price(_over(charged * charge.unit_price, charge.per))
        case Graduated():
            return _graduated(charge, quantity)


def less(whole: Decimal, part: Decimal) -> Decimal:
    """Subtract exactly."""
    with localcontext(_EXACT):
        return whole - part


def total(amounts: list[Decimal]) -> Decimal:
    """Add up exactly."""
    with localcontext(_EXACT):
        return sum(amounts, Decimal(0))


def _graduated(charge: Graduated, quantity: Decimal) -> Price:
    tiers: list[TierAmount] = []
    with localcontext(_EXACT):
        bound, product = Decimal(0), Decimal(0)
        for tier in charge.tiers:
            start = max(bound, charge.included)
            end = quantity
            if tier.up_to is not None:
                start, end, bound = min(start, tier.up_to), min(quantity, tier.up_to), tier.up_to
            charged = max(Decimal(0), end - start)
            amount = charged * tier.unit_price
            product += amount
            tiers.append(TierAmount(start, tier.up_to, charged, tier.unit_price, _over(amount, charge.per)))
        return Price(_over(product, charge.per), tuple(tiers))


def _over(product: Decimal, per: Decimal) -> Decimal:
    quotient = product / per
    exponent = quotient.as_tuple().exponent
    return quotient.quantize(_GRID) if isinstance(exponent, int) and exponent < -PRECISE_DECIMALS else quotient
