"""Plans: what a subscription costs and allows."""

import enum
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final


class Interval(enum.StrEnum):
    """How often a plan is billed."""

    MONTH = "MONTH"


class LimitKind(enum.StrEnum):
    """What a limit does when it is reached."""

    HARD = "HARD"
    SOFT = "SOFT"


DEFAULT_THRESHOLDS: Final = (80, 95, 100)


@dataclass(frozen=True)
class FlatFee:
    """A fixed amount a period, in the plan's currency."""

    amount: Decimal


@dataclass(frozen=True)
class PerUnit:
    """One price for every unit: `max(0, quantity - included) / per * unit_price`."""

    meter: str
    unit_price: Decimal
    per: Decimal = Decimal(1)
    included: Decimal = Decimal(0)


@dataclass(frozen=True)
class Tier:
    """Units up to and including `up_to` (None: all others) cost `unit_price` per `per` units."""

    up_to: Decimal | None
    unit_price: Decimal


@dataclass(frozen=True)
class Graduated:
    """Each unit at the price of the tier in which it falls; bounds count the included units too."""

    meter: str
    tiers: tuple[Tier, ...]
    per: Decimal = Decimal(1)
    included: Decimal = Decimal(0)


Charge = FlatFee | PerUnit | Graduated


@dataclass(frozen=True)
class Component:
    """One part of a plan's price: one invoice line a period."""

    id: str
    display_name: str
    charge: Charge


@dataclass(frozen=True)
class Limit:
    """The most of a meter that a period allows, and the percentages of it at which a signal is raised."""

    meter: str
    limit: Decimal
    kind: LimitKind
    thresholds: tuple[int, ...] = DEFAULT_THRESHOLDS


@dataclass(frozen=True)
class PlanTerms:
    """What a user says of a plan; two plans with equal terms are the same."""

    id: str
    display_name: str
    currency: str
    interval: Interval
    components: tuple[Component, ...]
    limits: tuple[Limit, ...]


@dataclass(frozen=True)
class Plan:
    """A version of a plan."""

    terms: PlanTerms
    version: int
    create_time: datetime

    def component(self, component_id: str) -> Component:
        """Return the component. Raises KeyError when there is none."""
        for component in self.terms.components:
            if component.id == component_id:
                return component
        raise KeyError(component_id)
