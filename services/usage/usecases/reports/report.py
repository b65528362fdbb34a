"""What a report says."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal

from services.kit.money import Money
from services.usage.domain.limit import Period
from services.usage.domain.report import Kept, Recommendation, Trend
from services.usage.store.meters import StoredMeter


@dataclass(frozen=True)
class GroupValue:
    """A meter's value for a group."""

    group: Mapping[str, str]
    value: Decimal


@dataclass(frozen=True)
class MeterDay:
    """A meter's day. `cost` is None where no price is known."""

    date: date
    value: Decimal
    cost: Decimal | None
    groups: tuple[GroupValue, ...]


@dataclass(frozen=True)
class MeterReport:
    """A meter in a report."""

    meter: StoredMeter
    total: Decimal
    days: tuple[MeterDay, ...]
    trend: Trend
    groups: tuple[GroupValue, ...]
    groups_left_out: bool


@dataclass(frozen=True)
class ComponentCost:
    """What a component cost in the range."""

    id: str
    display_name: str
    meter: str
    precise: Decimal
    amount: Money


@dataclass(frozen=True)
class Cost:
    """What the range cost. `state` is PRICED, STALE, NO_PLAN or UNKNOWN; `as_of` is None where nothing was priced."""

    state: str
    currency: str = ""
    plan_id: str = ""
    components: tuple[ComponentCost, ...] = ()
    days: tuple[tuple[date, Decimal], ...] = ()
    precise: Decimal = Decimal(0)
    total: Money | None = None
    as_of: datetime | None = None


@dataclass(frozen=True)
class Compliance:
    """Whether limits were kept and the data is complete."""

    limits: tuple[Kept, ...]
    as_of: datetime
    is_complete: bool
    quarantined: int
    lag: float


@dataclass(frozen=True)
class UsageReport:
    """A report."""

    customer_id: str
    period: Period
    time_zone: str
    made_at: datetime
    meters: tuple[MeterReport, ...]
    cost: Cost
    recommendation: Recommendation
    compliance: Compliance
