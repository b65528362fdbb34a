"""Prices without an invoice."""

from collections.abc import Iterable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Final

from google.type import decimal_pb2

from meterscope.billing.v1 import catalog_service_pb2 as pb
from services.billing.convert import plan as plans
from services.billing.convert.times import instant
from services.billing.domain.preview import PlanCost, Preview
from services.billing.usecases.prices import PeriodCost, PeriodTotals
from services.kit.errors import InvalidArgument
from services.kit.money import Money, decimal_from_proto, decimal_to_proto, money_to_proto

_MAX_METERS: Final = 1_000
_MAX_PERIODS: Final = 1_000
_MAX_COMPARED: Final = 500
_MAX_QUANTITIES: Final = 500_000
_MAX_AMOUNT: Final = Decimal(10) ** 18
# Sums of many quantities have more digits than one that a caller may send.
_MAX_TEXT: Final = 200


def quantities(message: Mapping[str, decimal_pb2.Decimal]) -> dict[str, Decimal]:
    """Decode what a user asks the price of.

    Raises:
        InvalidArgument: naming the quantity that is none.
    """
    _check_count("quantities", len(message), 0, _MAX_METERS)
    return {meter: decimal_from_proto(number, f"quantities[{meter[:64]}]") for meter, number in sorted(message.items())}


def periods(request: pb.PriceUsageRequest) -> list[PeriodTotals]:
    """Decode running totals.

    Raises:
        InvalidArgument: naming the field.
    """
    _check_count("periods", len(request.periods), 1, _MAX_PERIODS)
    count = sum(len(meter.quantities) for period in request.periods for meter in period.meters)
    _check_count("periods", count, 0, _MAX_QUANTITIES, of=" quantities")
    return [
        PeriodTotals(
            customer_id=_given(period.customer_id, f"periods[{index}].customer_id"),
            start=instant(period.start_time, f"periods[{index}].start_time"),
            meters={
                meter.meter: [_number(each, f"periods[{index}].meters") for each in meter.quantities]
                for meter in period.meters
            },
        )
        for index, period in enumerate(request.periods)
    ]


def compared(request: pb.ComparePlansRequest) -> list[dict[str, Decimal]]:
    """Decode the periods to compare by.

    Raises:
        InvalidArgument: naming the field.
    """
    _check_count("periods", len(request.periods), 1, _MAX_COMPARED)
    return [
        {meter: _number(number, f"periods[{index}].quantities") for meter, number in period.quantities.items()}
        for index, period in enumerate(request.periods)
    ]


def preview(value: Preview) -> pb.PricePreview:
    """Encode a price.

    Raises:
        InvalidArgument: an amount that is above 10^18.
    """
    currency = value.plan.terms.currency
    if value.total >= _MAX_AMOUNT:
        raise InvalidArgument.at("quantities", f"cost {currency} 10^18 or more; send smaller ones", reason="TOO_LARGE")
    return pb.PricePreview(
        plan_id=value.plan.terms.id,
        plan_version=value.plan.version,
        currency=currency,
        components=[
            pb.ComponentPrice(
                component_id=each.component.id,
                display_name=each.component.display_name,
                meter=each.meter,
                quantity=decimal_to_proto(each.quantity),
                precise_amount=decimal_to_proto(each.price.precise_amount),
                amount=money_to_proto(Money(each.amount, currency)),
                tiers=[
                    pb.TierPrice(
                        up_to=plans.optional(tier.up_to),
                        quantity=decimal_to_proto(tier.quantity),
                        unit_price=decimal_to_proto(tier.unit_price),
                        precise_amount=decimal_to_proto(tier.precise_amount),
                    )
                    for tier in each.price.tiers
                ],
            )
            for each in value.components
        ],
        precise_total=decimal_to_proto(value.precise_total),
        total=money_to_proto(Money(value.total, currency)),
        unpriced_meters=value.unpriced_meters,
    )


def costs(found: Iterable[PeriodCost]) -> pb.PriceUsageResponse:
    """Encode what running totals cost."""
    return pb.PriceUsageResponse(periods=map(_cost, found))


def plan_costs(found: Iterable[PlanCost]) -> pb.ComparePlansResponse:
    """Encode what usage costs on each plan.

    Raises:
        InvalidArgument: an amount that is above 10^18.
    """
    return pb.ComparePlansResponse(plans=map(_plan_cost, found))


def _cost(cost: PeriodCost) -> pb.PeriodCost:
    if cost.plan is None:
        return pb.PeriodCost()
    return pb.PeriodCost(
        plan_id=cost.plan.terms.id,
        plan_version=cost.plan.version,
        currency=cost.plan.terms.currency,
        components=[
            pb.ComponentCost(
                component_id=each.component.id,
                display_name=each.component.display_name,
                meter=each.meter,
                precise_amounts=map(decimal_to_proto, each.precise_amounts),
            )
            for each in cost.components
        ],
    )


def _plan_cost(cost: PlanCost) -> pb.PlanCost:
    terms = cost.plan.terms
    if cost.total >= _MAX_AMOUNT:
        raise InvalidArgument.at("periods", f"cost {terms.currency} 10^18 or more on {terms.id}", reason="TOO_LARGE")
    return pb.PlanCost(
        plan_id=terms.id,
        plan_version=cost.plan.version,
        display_name=terms.display_name,
        current=cost.is_current,
        precise_total=decimal_to_proto(cost.precise_total),
        total=money_to_proto(Money(cost.total, terms.currency)),
        flat_fees=money_to_proto(Money(cost.flat_fees, terms.currency)),
        limits=plans.plan(cost.plan).limits,
    )


def _check_count(field: str, count: int, least: int, most: int, *, of: str = "") -> None:
    if not least <= count <= most:
        raise InvalidArgument.at(field, f"{count}{of} given; {least} to {most:,} are allowed")


def _given(text: str, field: str) -> str:
    if not text:
        raise InvalidArgument.at(field, "is missing")
    return text


def _number(message: decimal_pb2.Decimal, field: str) -> Decimal:
    try:
        number = Decimal(message.value) if len(message.value) <= _MAX_TEXT else None
    except InvalidOperation:
        number = None
    if number is None or not number.is_finite() or number < 0 or abs(number.adjusted()) > _MAX_TEXT:
        raise InvalidArgument.at(field, f"{message.value[:64]!r} is no quantity", reason="NOT_A_NUMBER")
    return number
