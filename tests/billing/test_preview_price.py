"""Prices without an invoice. Expected numbers are worked out by hand beside them; the plan is in billing_harness."""

from decimal import Decimal
from typing import Any

import grpc
import pytest
from billing_harness import Client, amount, number, reason, timestamp, violations
from google.protobuf import json_format
from google.type import decimal_pb2

from meterscope.billing.v1 import catalog_service_pb2 as pb


def asked(quantities: dict[str, str], **fields: Any) -> pb.PreviewPriceRequest:
    request = pb.PreviewPriceRequest(**fields)
    for meter, quantity in quantities.items():
        request.quantities[meter].value = quantity
    return request


def running(customer_id: str, start: str, **meters: list[str]) -> pb.PeriodUsage:
    document = {"customer_id": customer_id, "meters": [_meter(name, totals) for name, totals in meters.items()]}
    message = json_format.ParseDict(document, pb.PeriodUsage())
    message.start_time.CopyFrom(timestamp(start))
    return message


def _meter(name: str, totals: list[str]) -> dict[str, Any]:
    return {"meter": name, "quantities": [{"value": total} for total in totals]}


def test_a_price_is_shown_before_and_after_rounding_for_each_component(client: Client) -> None:
    plan = client.plan()
    price = client.catalog.PreviewPrice(asked({"requests": "450", "bytes": "3480555124"}, plan_id=plan.id))
    # 100 free, 100 at 40, 200 at 30, 50 at 20, each per 1,000: 4 + 6 + 1; 3.480555124 GB at 8.50.
    assert [(part.component_id, number(part.precise_amount), amount(part.amount)) for part in price.components] == [
        ("base", Decimal(499), Decimal(499)),
        ("requests", Decimal(11), Decimal(11)),
        ("bytes", Decimal("29.584718554"), Decimal("29.58")),
    ]
    assert [number(tier.precise_amount) for tier in price.components[1].tiers] == [4, 6, 1]
    assert number(price.precise_total) == Decimal("539.584718554")
    assert (price.currency, price.total.currency_code, amount(price.total)) == ("INR", "INR", Decimal("539.58"))
    assert (price.plan_id, price.plan_version) == (plan.id, 1)


def test_a_meter_that_is_left_out_has_no_usage_and_one_without_a_price_is_named(client: Client) -> None:
    price = client.catalog.PreviewPrice(asked({"storage": "7", "calls": "1"}, plan_id=client.plan().id))
    assert amount(price.total) == 499
    assert list(price.unpriced_meters) == ["calls", "storage"]


def test_a_customer_is_priced_on_its_own_plan(client: Client) -> None:
    customer, plan = client.customer(), client.plan()
    with pytest.raises(grpc.RpcError) as refused:
        client.catalog.PreviewPrice(asked({"requests": "101"}, customer_id=customer.id))
    assert refused.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert reason(refused.value) == "NO_RUNNING_SUBSCRIPTION"
    client.subscribe(customer, plan, "2026-06-01T00:00")
    price = client.catalog.PreviewPrice(asked({"requests": "101"}, customer_id=customer.id))
    assert price.plan_id == plan.id
    assert number(price.precise_total) == Decimal("499.04")  # one request above the free ones, at 40 per 1,000


@pytest.mark.parametrize(
    ("fields", "quantities", "code", "field"),
    [
        ({}, {}, grpc.StatusCode.INVALID_ARGUMENT, "plan_id"),
        ({"plan_id": "nowhere"}, {}, grpc.StatusCode.NOT_FOUND, None),
        ({"customer_id": "cus_nobody"}, {}, grpc.StatusCode.NOT_FOUND, None),
        ({"plan_id": "nowhere"}, {"requests": "-1"}, grpc.StatusCode.INVALID_ARGUMENT, "quantities[requests]"),
        ({"plan_id": "nowhere"}, {"requests": "NaN"}, grpc.StatusCode.INVALID_ARGUMENT, "quantities[requests]"),
        ({"plan_id": "nowhere"}, {"requests": "1" * 29}, grpc.StatusCode.INVALID_ARGUMENT, "quantities[requests]"),
        ({"plan_id": "nowhere"}, {"requests": ""}, grpc.StatusCode.INVALID_ARGUMENT, "quantities[requests]"),
        ({"plan_id": "a\0b"}, {}, grpc.StatusCode.INVALID_ARGUMENT, "plan_id"),
    ],
)
def test_what_cannot_be_priced_is_refused_by_name(
    client: Client, fields: dict[str, str], quantities: dict[str, str], code: grpc.StatusCode, field: str | None
) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        client.catalog.PreviewPrice(asked(quantities, **fields))
    assert refused.value.code() == code
    assert field is None or field in violations(refused.value)


def test_an_amount_that_money_cannot_carry_is_refused(client: Client) -> None:
    # 10^27 requests at 20 per 1,000: 2 * 10^25.
    with pytest.raises(grpc.RpcError) as refused:
        client.catalog.PreviewPrice(asked({"requests": "1" + "0" * 27}, plan_id=client.plan().id))
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "quantities" in violations(refused.value)


def test_running_totals_of_many_customers_are_priced_in_one_call(client: Client) -> None:
    plan, one, two, three = client.plan(), client.customer(), client.customer(), client.customer()
    client.subscribe(one, plan, "2026-06-01T00:00")
    client.subscribe(two, plan, "2026-06-01T00:00")
    answer = client.catalog.PriceUsage(
        pb.PriceUsageRequest(
            periods=[
                running(one.id, "2026-06-01T00:00", requests=["100", "200", "401"], storage=["9"]),
                running(two.id, "2026-05-01T00:00", requests=["5"]),
                running(three.id, "2026-06-01T00:00", requests=["5"]),
                running(two.id, "2026-06-01T00:00"),
            ]
        )
    )
    first, before, without, idle = answer.periods
    assert [(part.component_id, part.meter, list(map(number, part.precise_amounts))) for part in first.components] == [
        ("base", "", [499]),
        ("requests", "requests", [0, 4, Decimal("10.02")]),  # see test_pricing
    ]
    assert (first.plan_id, first.plan_version, first.currency) == (plan.id, 1, "INR")
    # Two's subscription had not begun in May, three has none.
    assert before == without == pb.PeriodCost()
    assert [part.component_id for part in idle.components] == ["base"]


def test_plans_are_compared_on_the_same_usage_the_cheapest_first(client: Client) -> None:
    def plan(name: str, fee: int, price: str, currency: str = "KWD") -> pb.Plan:
        components = [
            {"id": "base", "display_name": "Base", "flat_fee": {"amount": {"currency_code": currency, "units": fee}}},
            {
                "id": "requests",
                "display_name": "Requests",
                "per_unit": {"meter": "requests", "unit_price": {"value": price}},
            },
        ]
        return client.plan({"currency": currency, "components": components, "limits": []}, plan_id=name)

    small, middle, large = plan("small", 0, "0.0105"), plan("middle", 2, "0.004"), plan("large", 9, "0")
    plan("elsewhere", 0, "0", "USD")
    customer = client.customer(currency="KWD")
    client.subscribe(customer, small, "2026-06-01T00:00")
    periods = [pb.UsageOfPeriod(quantities={"requests": decimal_pb2.Decimal(value=each)}) for each in ("1001", "301")]
    found = client.catalog.ComparePlans(pb.ComparePlansRequest(customer_id=customer.id, periods=periods)).plans
    # A dinar has three decimals. small: 10.5105 + 3.1605, by the period 10.511 + 3.161; middle: 6.004 + 3.204;
    # large: 9 a period.
    assert [(cost.plan_id, number(cost.precise_total), amount(cost.total), cost.current) for cost in found] == [
        (middle.id, Decimal("9.208"), Decimal("9.208"), False),
        (small.id, Decimal("13.671"), Decimal("13.672"), True),
        (large.id, Decimal(18), Decimal(18), False),
    ]
    assert [amount(cost.flat_fees) for cost in found] == [2, 0, 9]
