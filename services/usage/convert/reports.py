"""Reports, daily costs and anomalies. As CSV: `report_csv`."""

from collections.abc import Iterable
from datetime import date, timedelta
from decimal import Decimal
from typing import Final

from google.type import decimal_pb2, money_pb2

from meterscope.usage.v1 import limit_service_pb2 as limits_pb
from meterscope.usage.v1 import report_service_pb2 as pb
from services.kit.errors import InvalidArgument
from services.kit.money import Money, decimal_from_proto, decimal_to_proto, exponent, money_to_proto, plain, quantize
from services.kit.server import MAX_MESSAGE_BYTES
from services.usage.convert.fields import instant, text, timestamp
from services.usage.domain.anomaly import MAX_FACTOR, Anomaly, Kind, Part
from services.usage.domain.instant import quarter
from services.usage.domain.report import Action, Kept, Option, Recommendation, Trend
from services.usage.store.anomalies import StoredAnomaly
from services.usage.store.costs import Listed
from services.usage.store.reports import StoredReport
from services.usage.usecases.anomalies import Judgement
from services.usage.usecases.reports.report import Compliance, Cost, GroupValue, MeterReport, UsageReport

JSON: Final = "json"
CSV: Final = "csv"
# With room for what a stored report has besides.
_MOST_BYTES: Final = MAX_MESSAGE_BYTES - 64 * 1024
_MAX_HOURS: Final = 168
_ACTIONS: Final = {
    Action.NONE: pb.RECOMMENDED_ACTION_UNSPECIFIED,
    Action.STAY: pb.RECOMMENDED_ACTION_STAY,
    Action.UPGRADE: pb.RECOMMENDED_ACTION_UPGRADE,
    Action.DOWNGRADE: pb.RECOMMENDED_ACTION_DOWNGRADE,
}
_KINDS: Final = {Kind.SPIKE: pb.ANOMALY_KIND_SPIKE, Kind.DROP: pb.ANOMALY_KIND_DROP}


def document_format(value: str) -> str:
    """Decode the format that is asked for.

    Raises:
        InvalidArgument: there is no such format.
    """
    wanted = text(value, "format", optional=True).lower() or JSON
    if wanted not in {JSON, CSV}:
        raise InvalidArgument.at("format", f"{value[:64]!r} is not available; use json or csv")
    return wanted


def day(value: str, field: str) -> date | None:
    """Decode a day; None for an empty one.

    Raises:
        InvalidArgument: it is none.
    """
    if not text(value, field, optional=True):
        return None
    try:
        return date.fromisoformat(value)
    except ValueError:
        raise InvalidArgument.at(field, f"{value[:64]!r} is no day; send one such as 2026-11-21") from None


def judgement(request: pb.ListUsageAnomaliesRequest) -> Judgement | None:
    """Decode by what a customer is to be judged now; None for the stored list.

    Raises:
        InvalidArgument: names the field.
    """
    has_factor, has_end = request.HasField("factor"), request.HasField("end_time")
    if not (request.window_hours or has_factor or has_end):
        return None
    if not request.customer_id:
        raise InvalidArgument.at("customer_id", "is empty; to judge now, name the customer", reason="MISSING")
    if not 0 <= request.window_hours <= _MAX_HOURS:
        raise InvalidArgument.at("window_hours", f"{request.window_hours} is not within 1 to {_MAX_HOURS}")
    factor = decimal_from_proto(request.factor, "factor") if has_factor else None
    if factor is not None and not 1 < factor <= MAX_FACTOR:
        raise InvalidArgument.at("factor", f"{plain(factor)} is not above 1 and at most {MAX_FACTOR}")
    end = instant(request.end_time, "end_time") if has_end else None
    if end is not None and quarter(end) != end:
        raise InvalidArgument.at("end_time", f"{end.isoformat()} is not a whole quarter of an hour (UTC)")
    return Judgement(timedelta(hours=request.window_hours) if request.window_hours else None, factor, end)


def sized(message: pb.UsageReport) -> pb.UsageReport:
    """Return a report that fits into an answer.

    Raises:
        InvalidArgument: it does not; says what to do.
    """
    size = message.ByteSize()
    if size > _MOST_BYTES:
        raise InvalidArgument.at(
            "end_time",
            f"the report on this range has {size >> 20} MiB, and an answer holds {_MOST_BYTES >> 20} at most; ask for a "
            "shorter range",
            reason="REPORT_TOO_LARGE",
        )
    return message


def stored(found: StoredReport, customer_id: str) -> pb.UsageReport:
    """Encode how far a job is with a report, or the report."""
    message = pb.UsageReport.FromString(found.report)
    message.id = found.id
    message.state = pb.ReportState.Value(f"REPORT_STATE_{found.state}")
    message.progress_percent = found.progress
    message.error = found.error
    message.customer_id = customer_id
    message.start_time.CopyFrom(timestamp(found.period.start))
    message.end_time.CopyFrom(timestamp(found.period.end))
    return message


def report(found: UsageReport) -> pb.UsageReport:
    """Encode a report.

    Raises:
        InvalidArgument: it does not fit into an answer.
    """
    message = pb.UsageReport(
        state=pb.REPORT_STATE_READY,
        progress_percent=100,
        customer_id=found.customer_id,
        start_time=timestamp(found.period.start),
        end_time=timestamp(found.period.end),
        time_zone=found.time_zone,
        create_time=timestamp(found.made_at),
        meters=map(_meter, found.meters),
        cost=_cost(found.cost),
        recommendation=_recommendation(found.recommendation),
        compliance=_compliance(found.compliance),
    )
    return sized(message)


def daily_cost(found: Listed) -> pb.DailyCost:
    """Encode what a day cost."""
    return pb.DailyCost(
        customer_id=found.key.customer_id,
        date=found.key.day.isoformat(),
        period_start_time=timestamp(found.key.period_start),
        currency=found.currency,
        precise_amount=decimal_to_proto(found.amount),
        amount=money_to_proto(Money(quantize(found.amount, exponent(found.currency)), found.currency)),
        as_of=timestamp(found.as_of),
    )


def anomaly(found: Anomaly, known: StoredAnomaly | None = None) -> pb.UsageAnomaly:
    """Encode an anomaly, as it is stored or as it was judged on demand."""
    judged = found.finding
    return pb.UsageAnomaly(
        id=known.id if known else "",
        customer_id=found.customer_id,
        meter=found.meter,
        kind=_KINDS[judged.kind],
        start_time=timestamp(found.window.start),
        end_time=timestamp(found.window.end),
        expected=decimal_to_proto(judged.expected),
        seen=decimal_to_proto(judged.seen),
        factor=decimal_to_proto(found.factor),
        ratio=decimal_to_proto(judged.ratio),
        weekly_values=map(decimal_to_proto, judged.weekly),
        rolling_median=_optional(judged.rolling_median),
        rolling_windows=judged.rolling_windows,
        confidence=float(judged.confidence),
        groups=map(_part, found.groups),
        attributes=map(_part, found.attributes),
        other_meters=found.other_meters,
        trace_ids=found.trace_ids,
        explanation=found.explanation,
        create_time=timestamp(known.created_at) if known else None,
    )


def _meter(found: MeterReport) -> pb.MeterReport:
    return pb.MeterReport(
        meter=found.meter.meter.id,
        unit=found.meter.meter.unit,
        total=decimal_to_proto(found.total),
        days=[
            pb.MeterDay(
                date=each.date.isoformat(),
                value=decimal_to_proto(each.value),
                precise_cost=_optional(each.cost),
                groups=_groups(each.groups),
            )
            for each in found.days
        ],
        trend=_trend(found.trend),
        groups=_groups(found.groups),
        groups_left_out=found.groups_left_out,
    )


def _groups(groups: Iterable[GroupValue]) -> list[pb.GroupValue]:
    return [pb.GroupValue(group=each.group, value=decimal_to_proto(each.value)) for each in groups]


def _trend(found: Trend) -> pb.Trend:
    compared = found.comparison
    return pb.Trend(
        previous_start_time=timestamp(compared.previous.start),
        previous_end_time=timestamp(compared.previous.end),
        current_end_time=timestamp(compared.current.end),
        current=decimal_to_proto(found.current),
        previous=decimal_to_proto(found.previous),
        change=decimal_to_proto(found.change),
        change_percent=_optional(found.percent),
    )


def _cost(found: Cost) -> pb.CostReport:
    return pb.CostReport(
        state=pb.CostState.Value(f"COST_STATE_{found.state}"),
        currency=found.currency,
        plan_id=found.plan_id,
        components=[
            pb.CostComponent(
                component_id=each.id,
                display_name=each.display_name,
                meter=each.meter,
                precise_amount=decimal_to_proto(each.precise),
                amount=money_to_proto(each.amount),
            )
            for each in found.components
        ],
        days=[pb.CostDay(date=day.isoformat(), precise_amount=decimal_to_proto(amount)) for day, amount in found.days],
        precise_total=decimal_to_proto(found.precise) if found.total else None,
        total=_money(found.total),
        as_of=timestamp(found.as_of) if found.as_of else None,
    )


def _recommendation(found: Recommendation) -> pb.Recommendation:
    return pb.Recommendation(
        action=_ACTIONS[found.action],
        plan_id=found.plan_id,
        reasons=found.reasons,
        saving=_money(found.saving),
        periods=[
            pb.ComparedPeriod(
                start_time=timestamp(each.period.start), end_time=timestamp(each.period.end), projected=each.projected
            )
            for each in found.bases
        ],
        plans=map(_option, found.options),
    )


def _option(found: Option) -> pb.PlanOption:
    cost = found.cost
    return pb.PlanOption(
        plan_id=cost.plan_id,
        plan_version=cost.version,
        display_name=cost.display_name,
        current=cost.is_current,
        precise_total=decimal_to_proto(cost.precise_total),
        total=money_to_proto(cost.total),
        flat_fees=money_to_proto(cost.flat_fees),
        fits=found.fits,
        exceeded_meters=found.exceeded,
    )


def _compliance(found: Compliance) -> pb.Compliance:
    return pb.Compliance(
        limits_kept=all(each.excess is None for each in found.limits),
        limits=map(_kept, found.limits),
        data_complete=found.is_complete,
        as_of=timestamp(found.as_of),
        quarantined_events=found.quarantined,
        rollup_lag_seconds=found.lag,
    )


def _kept(found: Kept) -> pb.LimitCompliance:
    return pb.LimitCompliance(
        meter=found.limit.meter,
        kind=limits_pb.LimitKind.Value(f"LIMIT_KIND_{found.limit.kind.value}"),
        limit=decimal_to_proto(found.limit.amount),
        period_start_time=timestamp(found.period.start),
        period_end_time=timestamp(found.period.end),
        used=decimal_to_proto(found.used),
        exceeded=found.excess is not None,
        exceed_time=timestamp(found.exceeded_at) if found.exceeded_at else None,
        excess=_optional(found.excess),
    )


def _part(part: Part) -> pb.MovedPart:
    return pb.MovedPart(
        name=part.name,
        value=part.value,
        expected=decimal_to_proto(part.expected),
        seen=decimal_to_proto(part.seen),
        share_percent=float(part.share),
    )


def _optional(number: Decimal | None) -> decimal_pb2.Decimal | None:
    return None if number is None else decimal_to_proto(number)


def _money(amount: Money | None) -> money_pb2.Money | None:
    return None if amount is None else money_to_proto(amount)
