"""What billing is asked of prices, and what it answers."""

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal

from google.type import decimal_pb2, money_pb2

from meterscope.billing.v1 import catalog_service_pb2 as pb
from services.kit.money import Money, decimal_to_proto, money_from_proto
from services.usage.convert.fields import timestamp
from services.usage.domain.cost import Component, PeriodPrice, Running
from services.usage.domain.limit import Limit, LimitKind, Period
from services.usage.domain.report import PlanCost

_KINDS = {pb.PLAN_LIMIT_KIND_HARD: LimitKind.HARD, pb.PLAN_LIMIT_KIND_SOFT: LimitKind.SOFT}


def to_price(customer_id: str, period: Period, usage: Mapping[str, Running]) -> pb.PeriodUsage:
    """Encode running totals."""
    return pb.PeriodUsage(
        customer_id=customer_id,
        start_time=timestamp(period.start),
        meters=[
            pb.MeterUsage(meter=meter, quantities=map(decimal_to_proto, running.quantities))
            for meter, running in usage.items()
        ],
    )


def prices(answer: pb.PriceUsageResponse) -> list[PeriodPrice]:
    """Decode what they cost."""
    return [
        PeriodPrice(
            plan_id=cost.plan_id,
            plan_version=cost.plan_version,
            currency=cost.currency,
            components=tuple(
                Component(part.component_id, part.display_name, part.meter, tuple(map(_number, part.precise_amounts)))
                for part in cost.components
            ),
        )
        for cost in answer.periods
    ]


def to_compare(customer_id: str, periods: Sequence[Mapping[str, Decimal]]) -> pb.ComparePlansRequest:
    """Encode periods' usage."""
    return pb.ComparePlansRequest(
        customer_id=customer_id,
        periods=[
            pb.UsageOfPeriod(quantities={meter: decimal_to_proto(value) for meter, value in period.items()})
            for period in periods
        ],
    )


def plan_costs(answer: pb.ComparePlansResponse) -> list[PlanCost]:
    """Decode what it costs on each plan."""
    return [
        PlanCost(
            plan_id=plan.plan_id,
            version=plan.plan_version,
            display_name=plan.display_name,
            is_current=plan.current,
            precise_total=_number(plan.precise_total),
            total=_money(plan.total),
            flat_fees=_money(plan.flat_fees),
            limits=tuple(_limits(plan.limits)),
        )
        for plan in answer.plans
    ]


def _limits(limits: Iterable[pb.PlanLimit]) -> Iterable[Limit]:
    for limit in limits:
        yield Limit(limit.meter, _number(limit.limit), _KINDS[limit.kind], tuple(limit.thresholds))


def _number(message: decimal_pb2.Decimal) -> Decimal:
    # Not parse_quantity: a price has more decimals than a quantity that a caller may send.
    return Decimal(message.value)


def _money(message: money_pb2.Money) -> Money:
    return money_from_proto(message, "amount")
