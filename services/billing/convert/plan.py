"""Plans."""

from decimal import Decimal

from google.protobuf.message import Message
from google.type import decimal_pb2

from meterscope.billing.v1 import catalog_service_pb2 as pb
from services.billing.convert.times import timestamp
from services.billing.domain.plan import (
    DEFAULT_THRESHOLDS,
    Charge,
    Component,
    FlatFee,
    Graduated,
    Interval,
    Limit,
    LimitKind,
    PerUnit,
    Plan,
    PlanTerms,
    Tier,
)
from services.kit.errors import InvalidArgument
from services.kit.money import Money, decimal_from_proto, decimal_to_proto, exponent, money_from_proto, money_to_proto


def terms(message: pb.Plan) -> PlanTerms:
    """Decode what a user says of a plan. The rules of plan_rules.py are not judged here.

    Raises:
        InvalidArgument: naming a field that is missing or is no such number, amount or word.
    """
    _currency(message.currency)
    if message.interval != pb.BILLING_INTERVAL_MONTH:
        raise InvalidArgument.at("plan.interval", "is not BILLING_INTERVAL_MONTH, the only interval there is")
    return PlanTerms(
        id=message.id,
        display_name=message.display_name,
        currency=message.currency,
        interval=Interval.MONTH,
        components=tuple(
            Component(
                component.id,
                component.display_name,
                _charge(component, f"plan.components[{index}]", message.currency),
            )
            for index, component in enumerate(message.components)
        ),
        limits=tuple(_limit(limit, f"plan.limits[{index}]") for index, limit in enumerate(message.limits)),
    )


def plan(value: Plan) -> pb.Plan:
    """Encode a version of a plan."""
    return pb.Plan(
        id=value.terms.id,
        display_name=value.terms.display_name,
        currency=value.terms.currency,
        interval=pb.BILLING_INTERVAL_MONTH,
        components=[_component(component, value.terms.currency) for component in value.terms.components],
        limits=[
            pb.PlanLimit(
                meter=limit.meter,
                limit=decimal_to_proto(limit.limit),
                kind=pb.PlanLimitKind.Value(f"PLAN_LIMIT_KIND_{limit.kind}"),
                thresholds=limit.thresholds,
            )
            for limit in value.terms.limits
        ],
        version=value.version,
        create_time=timestamp(value.create_time),
    )


def _currency(currency: str) -> None:
    try:
        exponent(currency)
    except InvalidArgument as error:
        raise InvalidArgument.at("plan.currency", error.violations[0].description) from None


def _charge(component: pb.PriceComponent, path: str, currency: str) -> Charge:
    match component.WhichOneof("charge"):
        case "flat_fee":
            return FlatFee(_fee(component.flat_fee, f"{path}.flat_fee.amount", currency))
        case "per_unit":
            per_unit, path = component.per_unit, f"{path}.per_unit"
            return PerUnit(
                meter=per_unit.meter,
                unit_price=_required(per_unit, "unit_price", path),
                per=_optional(per_unit, "per", path, Decimal(1)),
                included=_optional(per_unit, "included", path, Decimal(0)),
            )
        case "graduated":
            graduated, path = component.graduated, f"{path}.graduated"
            return Graduated(
                meter=graduated.meter,
                tiers=tuple(_tier(tier, f"{path}.tiers[{index}]") for index, tier in enumerate(graduated.tiers)),
                per=_optional(graduated, "per", path, Decimal(1)),
                included=_optional(graduated, "included", path, Decimal(0)),
            )
        case _:
            raise InvalidArgument.at(path, "has no charge; set one of flat_fee, per_unit, graduated")


def _fee(fee: pb.FlatFee, field: str, currency: str) -> Decimal:
    if not fee.HasField("amount"):
        raise InvalidArgument.at(field, "is missing")
    if fee.amount.currency_code != currency:
        raise InvalidArgument.at(field, f"is in {fee.amount.currency_code!r}; the plan is in {currency}")
    return money_from_proto(fee.amount, field).amount


def _tier(tier: pb.Tier, path: str) -> Tier:
    bound = decimal_from_proto(tier.up_to, f"{path}.up_to") if tier.HasField("up_to") else None
    return Tier(bound, _required(tier, "unit_price", path))


def _limit(limit: pb.PlanLimit, path: str) -> Limit:
    kinds = {pb.PLAN_LIMIT_KIND_HARD: LimitKind.HARD, pb.PLAN_LIMIT_KIND_SOFT: LimitKind.SOFT}
    if limit.kind not in kinds:
        raise InvalidArgument.at(f"{path}.kind", "is neither PLAN_LIMIT_KIND_HARD nor PLAN_LIMIT_KIND_SOFT")
    return Limit(
        meter=limit.meter,
        limit=_required(limit, "limit", path),
        kind=kinds[limit.kind],
        thresholds=tuple(limit.thresholds) or DEFAULT_THRESHOLDS,
    )


def _required(message: Message, name: str, path: str) -> Decimal:
    if not message.HasField(name):
        raise InvalidArgument.at(f"{path}.{name}", "is missing")
    value: decimal_pb2.Decimal = getattr(message, name)
    return decimal_from_proto(value, f"{path}.{name}")


def _optional(message: Message, name: str, path: str, default: Decimal) -> Decimal:
    if not message.HasField(name):
        return default
    value: decimal_pb2.Decimal = getattr(message, name)
    return decimal_from_proto(value, f"{path}.{name}")


def _component(component: Component, currency: str) -> pb.PriceComponent:
    message = pb.PriceComponent(id=component.id, display_name=component.display_name)
    match component.charge:
        case FlatFee(amount):
            message.flat_fee.amount.CopyFrom(money_to_proto(Money(amount, currency)))
        case PerUnit() as charge:
            message.per_unit.CopyFrom(
                pb.PerUnitCharge(
                    meter=charge.meter,
                    unit_price=decimal_to_proto(charge.unit_price),
                    per=decimal_to_proto(charge.per),
                    included=decimal_to_proto(charge.included),
                )
            )
        case Graduated() as charge:
            message.graduated.CopyFrom(
                pb.GraduatedCharge(
                    meter=charge.meter,
                    included=decimal_to_proto(charge.included),
                    per=decimal_to_proto(charge.per),
                    tiers=[
                        pb.Tier(up_to=optional(tier.up_to), unit_price=decimal_to_proto(tier.unit_price))
                        for tier in charge.tiers
                    ],
                )
            )
    return message


def optional(number: Decimal | None) -> decimal_pb2.Decimal | None:
    """Encode a number; None for none."""
    return None if number is None else decimal_to_proto(number)
