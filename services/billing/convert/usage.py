"""What usage is told and what it answers."""

from collections.abc import Iterable, Sequence
from decimal import Decimal

from meterscope.usage.v1 import limit_service_pb2, usage_service_pb2
from services.billing.convert.times import instant, interval
from services.billing.domain.customer import Customer
from services.billing.domain.period import Period
from services.billing.domain.plan import Plan
from services.billing.domain.seal import LateUsage, MeterTotal, Seal
from services.kit.money import decimal_to_proto


def entitlements(
    customer: Customer, revision: int, plan: Plan | None, periods: Sequence[Period]
) -> limit_service_pb2.PutEntitlementsRequest:
    """Encode all that usage needs to know of a customer, but for the request id."""
    return limit_service_pb2.PutEntitlementsRequest(
        customer_id=customer.id,
        customer_keys=[customer.external_key] if customer.external_key else [],
        revision=revision,
        time_zone=customer.time_zone,
        periods=[interval(period) for period in periods],
        limits=[
            limit_service_pb2.Limit(
                meter=limit.meter,
                limit=decimal_to_proto(limit.limit),
                kind=limit_service_pb2.LimitKind.Value(f"LIMIT_KIND_{limit.kind}"),
                thresholds=limit.thresholds,
            )
            for limit in (plan.terms.limits if plan else ())
        ],
        has_plan=plan is not None,
    )


def seal(message: usage_service_pb2.SealUsageResponse) -> Seal:
    """Decode a closed period. Prices know no groups: they are applied to a meter's groups as one."""
    return Seal(
        id=message.seal_id,
        totals=_totals(message.merged_totals or message.totals),
        late_usage=tuple(
            LateUsage(
                instant(late.period_end_time, "late_usage.period_end_time"), _totals(late.merged_totals or late.totals)
            )
            for late in message.late_usage
        ),
        quarantined_events=message.quarantined_events,
    )


def _totals(messages: Iterable[usage_service_pb2.SealedTotal]) -> dict[str, MeterTotal]:
    totals: dict[str, MeterTotal] = {}
    for message in messages:
        # Not parse_quantity: a sum may have more digits than a quantity that a caller may send.
        part = MeterTotal(
            message.meter,
            Decimal(message.value.value),
            message.event_count,
            tuple(message.sample_trace_ids),
            message.unit,
        )
        totals[message.meter] = totals[message.meter] + part if message.meter in totals else part
    return totals
