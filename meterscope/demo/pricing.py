"""What the demo's plan makes of the traffic, worked out by the demo itself from the plan's file."""

from collections.abc import Mapping
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, Final

_CENT: Final = Decimal("0.01")


def amounts(plan: Mapping[str, Any], usage: Mapping[str, int]) -> list[Decimal]:
    """Return the amount of each line, rounded once to two decimals, half away from zero.

    Args:
        plan: the plan, as in REST JSON.
        usage: the totals by meter.
    """
    return [_precise(component, usage).quantize(_CENT, rounding=ROUND_HALF_UP) for component in plan["components"]]


def _precise(component: Mapping[str, Any], usage: Mapping[str, int]) -> Decimal:
    if fee := component.get("flat_fee"):
        return Decimal(fee["amount"]["amount"])
    if charge := component.get("per_unit"):
        charged = max(Decimal(0), usage[charge["meter"]] - Decimal(charge.get("included", "0")))
        return charged * Decimal(charge["unit_price"]) / Decimal(charge.get("per", "1"))
    charge = component["graduated"]
    quantity, below = Decimal(usage[charge["meter"]]), Decimal(charge.get("included", "0"))
    amount = Decimal(0)
    for tier in charge["tiers"]:
        top = min(quantity, Decimal(tier["up_to"])) if "up_to" in tier else quantity
        if top > below:
            amount += (top - below) * Decimal(tier["unit_price"]) / Decimal(charge.get("per", "1"))
            below = top
    return amount
