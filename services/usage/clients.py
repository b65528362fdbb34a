"""The services that usage calls. Each call that acts carries the outbox row's id: however often made, it counts once."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from typing import Final, cast

import grpc

from meterscope.alerts.v1 import alert_service_pb2, alert_service_pb2_grpc
from meterscope.billing.v1 import catalog_service_pb2 as catalog
from meterscope.billing.v1 import catalog_service_pb2_grpc
from services.kit.errors import Unavailable
from services.usage.convert import prices as convert
from services.usage.domain.cost import PeriodPrice, Running
from services.usage.domain.limit import Period
from services.usage.domain.report import PlanCost

# A report says what it knows rather than keep its reader waiting.
_SECONDS: Final = 3.0


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
        request = catalog.PriceUsageRequest(periods=[convert.to_price(*each) for each in asked])
        with _calling():
            return convert.prices(self._catalog.PriceUsage(request, timeout=_SECONDS))

    def compare(self, customer_id: str, periods: Sequence[Mapping[str, Decimal]]) -> list[PlanCost]:
        """Return what periods' usage would have cost on each plan, the cheapest first, in one call.

        Raises:
            BillingAway: there is no answer.
        """
        with _calling():
            answer = self._catalog.ComparePlans(convert.to_compare(customer_id, periods), timeout=_SECONDS)
        return convert.plan_costs(answer)


@contextmanager
def _calling() -> Iterator[None]:
    try:
        yield
    except grpc.RpcError as error:
        call = cast("grpc.Call", error)
        message = f"the billing service gives no prices now: {call.details() or call.code().name}"
        raise BillingAway(message) from error
