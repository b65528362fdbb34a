"""Plans as the JSON documents in which the database keeps them: numbers as strings, absent means none."""

from decimal import Decimal
from typing import Any

from services.billing.domain.plan import (
    Charge,
    Component,
    FlatFee,
    Graduated,
    Interval,
    Limit,
    LimitKind,
    PerUnit,
    PlanTerms,
    Tier,
)


def write(terms: PlanTerms) -> dict[str, Any]:
    """Return the document of a plan's terms."""
    return {
        "id": terms.id,
        "display_name": terms.display_name,
        "currency": terms.currency,
        "interval": terms.interval.value,
        "components": [
            {"id": component.id, "display_name": component.display_name, "charge": _write_charge(component.charge)}
            for component in terms.components
        ],
        "limits": [
            {
                "meter": limit.meter,
                "limit": str(limit.limit),
                "kind": limit.kind.value,
                "thresholds": list(limit.thresholds),
            }
            for limit in terms.limits
        ],
    }


def read(document: dict[str, Any]) -> PlanTerms:
    """Return the terms that a document says."""
    return PlanTerms(
        id=document["id"],
        display_name=document["display_name"],
        currency=document["currency"],
        interval=Interval(document["interval"]),
        components=tuple(
            Component(part["id"], part["display_name"], _read_charge(part["charge"])) for part in document["components"]
        ),
        limits=tuple(
            Limit(
                limit["meter"], Decimal(limit["limit"]), LimitKind(limit["kind"]), thresholds=tuple(limit["thresholds"])
            )
            for limit in document["limits"]
        ),
    )


def _write_charge(charge: Charge) -> dict[str, Any]:
    match charge:
        case FlatFee(amount):
            return {"flat_fee": {"amount": str(amount)}}
        case PerUnit():
            return {"per_unit": {**_write_metered(charge), "unit_price": str(charge.unit_price)}}
        case Graduated():
            tiers = [
                {"up_to": None if tier.up_to is None else str(tier.up_to), "unit_price": str(tier.unit_price)}
                for tier in charge.tiers
            ]
            return {"graduated": {**_write_metered(charge), "tiers": tiers}}


def _write_metered(charge: PerUnit | Graduated) -> dict[str, str]:
    return {"meter": charge.meter, "per": str(charge.per), "included": str(charge.included)}


def _read_charge(document: dict[str, Any]) -> Charge:
    match document:
        case {"flat_fee": fee}:
            return FlatFee(Decimal(fee["amount"]))
        case {"per_unit": charge}:
            return PerUnit(
                charge["meter"], Decimal(charge["unit_price"]), Decimal(charge["per"]), Decimal(charge["included"])
            )
        case {"graduated": charge}:
            tiers = tuple(
                Tier(None if tier["up_to"] is None else Decimal(tier["up_to"]), Decimal(tier["unit_price"]))
                for tier in charge["tiers"]
            )
            return Graduated(charge["meter"], tiers, Decimal(charge["per"]), Decimal(charge["included"]))
        case _:
            raise ValueError(f"no such charge: {sorted(document)}")
