"""The services that usage calls. Each call that acts carries the outbox row's id: however often made, it counts once."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from typing import Final, cast

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from google.type import decimal_pb2, money_pb2

from meterscope.alerts.v1 import alert_service_pb2, alert_service_pb2_grpc
from meterscope.billing.v1 import catalog_service_pb2 as catalog
from meterscope.billing.v1 import catalog_service_pb2_grpc
from services.kit.errors import Unavailable
from services.kit.money import Money, decimal_to_proto, money_from_proto
from services.usage.domain.cost import Component, PeriodPrice, Running
from services.usage.domain.limit import Limit, LimitKind, Period
from services.usage.domain.report import PlanCost

# A report says what it knows rather than keep its reader waiting.
_SECONDS: Final = 3.0
_KINDS: Final = {catalog.PLAN_LIMIT_KIND_HARD: LimitKind.HARD, catalog.PLAN_LIMIT_KIND_SOFT: LimitKind.SOFT}


class Alerts:
    """The alerts service."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._alerts = alert_service_pb2_grpc.AlertServiceStub(channel)

    def raise_signal(self, request: alert_service_pb2.RaiseSignalRequest, request_id: str) -> None:
        """Tell what people should know."""
        request.request_id = request_id
        self._alerts.RaiseSignal(request)


class BillingAway(Unavailable):
    """Billing gives no prices now."""

    reason = "PEER_AWAY"


class Billing:
    """The billing service: the only one that knows prices."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._catalog = catalog_service_pb2_grpc.CatalogServiceStub(channel)

    def price(self, asked: Sequence[tuple[str, Period, Mapping[str, Running]]]) -> list[PeriodPrice]:
        """Return what the running totals of customers' periods cost, in one call.

        Args:
            asked: customer, period, and running totals by meter.

        Raises:
            BillingAway: there is no answer.
        """
        request = catalog.PriceUsageRequest(periods=[_to_price(*each) for each in asked])
        with _calling():
            return _prices(self._catalog.PriceUsage(request, timeout=_SECONDS))

    def compare(self, customer_id: str, periods: Sequence[Mapping[str, Decimal]]) -> list[PlanCost]:
        """Return what periods' usage would have cost on each plan, the cheapest first, in one call.

        Raises:
            BillingAway: there is no answer.
        """
        with _calling():
            answer = self._catalog.ComparePlans(_to_compare(customer_id, periods), timeout=_SECONDS)
        return _plan_costs(answer)


@contextmanager
def _calling() -> Iterator[None]:
    try:
        yield
    except grpc.RpcError as error:
        call = cast("grpc.Call", error)
        message = f"the billing service gives no prices now: {call.details() or call.code().name}"
        raise BillingAway(message) from error


def _to_price(customer_id: str, period: Period, usage: Mapping[str, Running]) -> catalog.PeriodUsage:
    """Encode running totals."""
    start = Timestamp()
    start.FromDatetime(period.start)
    return catalog.PeriodUsage(
        customer_id=customer_id,
        start_time=start,
        meters=[
            catalog.MeterUsage(meter=meter, quantities=map(decimal_to_proto, running.quantities))
            for meter, running in usage.items()
        ],
    )


def _prices(answer: catalog.PriceUsageResponse) -> list[PeriodPrice]:
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


def _to_compare(customer_id: str, periods: Sequence[Mapping[str, Decimal]]) -> catalog.ComparePlansRequest:
    """Encode periods' usage."""
    return catalog.ComparePlansRequest(
        customer_id=customer_id,
        periods=[
            catalog.UsageOfPeriod(quantities={meter: decimal_to_proto(value) for meter, value in period.items()})
            for period in periods
        ],
    )


def _plan_costs(answer: catalog.ComparePlansResponse) -> list[PlanCost]:
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


def _limits(limits: Iterable[catalog.PlanLimit]) -> Iterable[Limit]:
    for limit in limits:
        yield Limit(limit.meter, _number(limit.limit), _KINDS[limit.kind], tuple(limit.thresholds))


def _number(message: decimal_pb2.Decimal) -> Decimal:
    # Not parse_quantity: a price has more decimals than a quantity that a caller may send.
    return Decimal(message.value)


def _money(message: money_pb2.Money) -> Money:
    return money_from_proto(message, "amount")
