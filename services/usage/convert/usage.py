"""Usage in windows, and seals."""

from collections.abc import Sequence
from typing import Final

from meterscope.usage.v1 import usage_service_pb2 as pb
from services.kit.errors import InvalidArgument
from services.kit.money import decimal_to_proto
from services.usage.convert.fields import instant, text, texts, timestamp
from services.usage.domain.window import Window
from services.usage.store.seals import Late, Total
from services.usage.usecases.query import Question, Usage
from services.usage.usecases.seal import Sealed

_WINDOWS: Final = {
    pb.WINDOW_UNSPECIFIED: Window.WHOLE,
    pb.WINDOW_QUARTER_HOUR: Window.QUARTER_HOUR,
    pb.WINDOW_HOUR: Window.HOUR,
    pb.WINDOW_DAY: Window.DAY,
    pb.WINDOW_MONTH: Window.MONTH,
    pb.WINDOW_BILLING_PERIOD: Window.BILLING_PERIOD,
}


def question(request: pb.QueryUsageRequest) -> Question:
    """Decode what is asked.

    Raises:
        InvalidArgument: names the field.
    """
    window = _WINDOWS.get(request.window)
    if window is None:
        raise InvalidArgument.at(
            "window", f"{request.window} is none; use QUARTER_HOUR, HOUR, DAY, MONTH or BILLING_PERIOD"
        )
    return Question(
        customer_id=text(request.customer_id, "customer_id"),
        meter=text(request.meter, "meter"),
        start=instant(request.start_time, "start_time", given=request.HasField("start_time")),
        end=instant(request.end_time, "end_time", given=request.HasField("end_time")),
        window=window,
        zone=text(request.time_zone, "time_zone", optional=True),
        group_by=texts(request.group_by, "group_by"),
        groups=_groups(request.group_filter),
    )


def usage(found: Usage) -> pb.QueryUsageResponse:
    """Encode usage."""
    return pb.QueryUsageResponse(
        windows=[
            pb.UsageWindow(
                start_time=timestamp(window.start),
                end_time=timestamp(window.end),
                group=window.group,
                value=decimal_to_proto(window.value),
            )
            for window in found.windows
        ],
        total=None if found.total is None else decimal_to_proto(found.total),
        as_of=timestamp(found.as_of),
    )


def _groups(parts: Sequence[str]) -> dict[str, str]:
    groups: dict[str, str] = {}
    for index, part in enumerate(parts):
        name, given, value = part.partition("=")
        if not given or "\0" in part or name in groups:
            raise InvalidArgument.at(
                f"group_filter[{index}]", f"{part[:80]!r} is no attribute=value, or names an attribute again"
            )
        groups[name] = value
    return groups


def sealed(found: Sealed) -> pb.SealUsageResponse:
    """Encode a closed period."""
    return pb.SealUsageResponse(
        seal_id=found.id,
        totals=_totals(found.totals.by_group),
        merged_totals=_totals(found.totals.merged),
        late_usage=map(late_usage, found.late),
        quarantined_events=found.quarantined,
    )


def late_usage(late: Late) -> pb.LateUsage:
    """Encode what a seal has with all that came late."""
    return pb.LateUsage(
        period_end_time=timestamp(late.period_end),
        totals=_totals(late.totals.by_group),
        merged_totals=_totals(late.totals.merged),
    )


def _totals(totals: Sequence[Total]) -> list[pb.SealedTotal]:
    return [
        pb.SealedTotal(
            meter=total.meter,
            group=total.group,
            value=decimal_to_proto(total.value),
            event_count=total.events,
            sample_trace_ids=total.trace_ids,
            event_type=total.event_type,
            unit=total.unit,
        )
        for total in totals
    ]
