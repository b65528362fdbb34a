"""Plans: kept as they were given, refused by the path of what is wrong."""

import copy
from typing import Any

import grpc
import pytest
from billing_harness import INR_PLAN, Client, reason, violations

from meterscope.billing.v1 import catalog_service_pb2 as pb


def test_a_plan_comes_back_as_it_was_given(client: Client) -> None:
    plan = client.plan(plan_id="web-inr")
    assert plan.version == 1
    assert client.catalog.GetPlan(pb.GetPlanRequest(plan_id="web-inr")) == plan
    graduated = plan.components[1].graduated
    assert [tier.unit_price.value for tier in graduated.tiers] == ["40", "30", "20"]
    assert (graduated.included.value, graduated.per.value) == ("100", "1000")
    assert not graduated.tiers[2].HasField("up_to")
    assert plan.components[2].per_unit.unit_price.value == "8.5"
    assert plan.components[0].flat_fee.amount.units == 499


def test_what_is_left_out_has_its_default(client: Client) -> None:
    plan = client.plan({"components": [metered(per_unit={"meter": "requests", "unit_price": {"value": "1"}})]})
    assert (plan.components[0].per_unit.per.value, plan.components[0].per_unit.included.value) == ("1", "0")
    assert list(plan.limits[0].thresholds) == [80, 95, 100]


def test_the_same_content_again_returns_the_plan_that_exists(client: Client) -> None:
    first = client.plan(plan_id="same")
    # 40.00 is 40: content is what a plan costs, not how it is written.
    again = copy.deepcopy(INR_PLAN["components"])
    again[1]["graduated"]["tiers"][0]["unit_price"]["value"] = "40.00"
    assert client.plan({"components": again}, plan_id="same") == first


def test_other_content_under_a_taken_id_is_refused(client: Client) -> None:
    client.plan(plan_id="taken")
    with pytest.raises(grpc.RpcError) as refused:
        client.plan({"display_name": "Another"}, plan_id="taken")
    assert refused.value.code() == grpc.StatusCode.ALREADY_EXISTS
    assert reason(refused.value) == "PLAN_EXISTS"


def test_an_unknown_plan_is_not_found(client: Client) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        client.catalog.GetPlan(pb.GetPlanRequest(plan_id="nowhere"))
    assert refused.value.code() == grpc.StatusCode.NOT_FOUND


def test_plans_are_listed_by_id_page_by_page(client: Client) -> None:
    for name in ("list-b", "list-a", "list-c"):
        client.plan(plan_id=name)
    first = client.catalog.ListPlans(pb.ListPlansRequest(page_size=1))
    rest = client.catalog.ListPlans(pb.ListPlansRequest(page_token=first.next_page_token))
    ids = [plan.id for plan in (*first.plans, *rest.plans)]
    assert ids == sorted(ids)
    assert {"list-a", "list-b", "list-c"} <= set(ids)


def metered(**charge: Any) -> dict[str, Any]:
    return {"id": "c", "display_name": "C", **charge}


def graduated(*tiers: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return metered(graduated={"meter": "requests", "tiers": list(tiers), **fields})


def tier(price: str, up_to: str = "") -> dict[str, Any]:
    return {"unit_price": {"value": price}, **({"up_to": {"value": up_to}} if up_to else {})}


def fee(units: int, currency: str = "INR", **fields: Any) -> dict[str, Any]:
    return metered(flat_fee={"amount": {"currency_code": currency, "units": units, **fields}})


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"id": "Web"}, "plan.id"),
        ({"id": "p" * 64}, "plan.id"),
        ({"display_name": ""}, "plan.display_name"),
        ({"currency": "XXX"}, "plan.currency"),
        ({"interval": "BILLING_INTERVAL_UNSPECIFIED"}, "plan.interval"),
        ({"components": []}, "plan.components"),
        ({"components": [metered()]}, "plan.components[0]"),
        ({"components": [{**fee(1), "id": ""}]}, "plan.components[0].id"),
        ({"components": [{**fee(1), "display_name": ""}]}, "plan.components[0].display_name"),
        ({"components": [fee(1), fee(2)]}, "plan.components[1].id"),
        ({"components": [metered(flat_fee={})]}, "plan.components[0].flat_fee.amount"),
        ({"components": [fee(1, "USD")]}, "plan.components[0].flat_fee.amount"),
        ({"components": [fee(-1)]}, "plan.components[0].flat_fee.amount"),
        ({"components": [fee(1, nanos=1_000_000)]}, "plan.components[0].flat_fee.amount"),
        ({"components": [metered(per_unit={"meter": "requests"})]}, "plan.components[0].per_unit.unit_price"),
        (
            {"components": [metered(per_unit={"meter": "requests", "unit_price": {"value": "-1"}})]},
            "plan.components[0].per_unit.unit_price",
        ),
        (
            {"components": [metered(per_unit={"meter": "", "unit_price": {"value": "1"}})]},
            "plan.components[0].per_unit.meter",
        ),
        (
            {"components": [metered(per_unit={"meter": "m", "unit_price": {"value": "1"}, "per": {"value": "0"}})]},
            "plan.components[0].per_unit.per",
        ),
        ({"components": [graduated()]}, "plan.components[0].graduated.tiers"),
        (
            {"components": [fee(1) | {"id": "fee"}, graduated(tier("1", "10"), tier("2", "10"), tier("3"))]},
            "plan.components[1].graduated.tiers[1].up_to",
        ),
        (
            {"components": [graduated(tier("1", "10"), tier("2"), tier("3"))]},
            "plan.components[0].graduated.tiers[1].up_to",
        ),
        (
            {"components": [graduated(tier("1", "10"), tier("2", "20"))]},
            "plan.components[0].graduated.tiers[1].up_to",
        ),
        ({"components": [graduated(tier("1", "0"), tier("2"))]}, "plan.components[0].graduated.tiers[0].up_to"),
        ({"components": [graduated(tier("NaN"))]}, "plan.components[0].graduated.tiers[0].unit_price"),
        (
            {"components": [graduated(tier("1"), included={"value": "x"})]},
            "plan.components[0].graduated.included",
        ),
        ({"limits": [{"meter": "m", "limit": {"value": "1"}}]}, "plan.limits[0].kind"),
        ({"limits": [{"meter": "m", "kind": "PLAN_LIMIT_KIND_HARD"}]}, "plan.limits[0].limit"),
        (
            {
                "limits": [
                    {
                        "meter": "m",
                        "limit": {"value": "1"},
                        "kind": "PLAN_LIMIT_KIND_HARD",
                        "thresholds": [80, 0],
                    }
                ]
            },
            "plan.limits[0].thresholds[1]",
        ),
        (
            {"limits": [{"meter": "m", "limit": {"value": "1"}, "kind": "PLAN_LIMIT_KIND_HARD"}] * 2},
            "plan.limits[1].meter",
        ),
    ],
)
def test_a_wrong_plan_is_refused_by_the_path_of_its_fault(client: Client, changes: dict[str, Any], field: str) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        client.plan({k: v for k, v in changes.items() if k != "id"}, plan_id=changes.get("id", ""))
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert set(violations(refused.value)) == {field}
