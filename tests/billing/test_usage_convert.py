"""What usage answers, as billing reads it."""

from decimal import Decimal

from billing_peers import sealed

from meterscope.usage.v1 import usage_service_pb2 as pb
from services.billing.convert import usage


def test_a_price_is_applied_to_a_meter_s_groups_as_one() -> None:
    """Neither a UNIQUE nor a MAX of groups may be added up: of 2 and 2 users, one may be the same."""
    groups, whole = [sealed("users", "2"), sealed("users", "2")], [sealed("users", "3", events=2)]
    message = pb.SealUsageResponse(
        seal_id="sea_1",
        totals=groups,
        merged_totals=whole,
        late_usage=[pb.LateUsage(period_end_time={"seconds": 1_767_225_600}, totals=groups, merged_totals=whole)],
    )

    found = usage.seal(message)

    assert found.total("users").value == Decimal(3)
    assert found.late_usage[0].totals["users"].value == Decimal(3)
