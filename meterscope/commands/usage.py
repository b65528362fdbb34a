"""`meterscope usage`: how much a customer used."""

from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import click
import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from rich.table import Table

from meterscope.billing.v1 import customer_service_pb2, customer_service_pb2_grpc
from meterscope.commands import calling, options
from meterscope.connection import open_channel
from meterscope.usage.v1 import meter_service_pb2 as meters_pb
from meterscope.usage.v1 import meter_service_pb2_grpc, usage_service_pb2_grpc
from meterscope.usage.v1 import usage_service_pb2 as pb

_TOTAL: Final = "total"
_WINDOWS: Final = {
    name.removeprefix("WINDOW_").lower().replace("_", "-") if number else _TOTAL: number
    for name, number in pb.Window.items()
}
_QUARTER: Final = timedelta(minutes=15)
# The windows whose beginning says which one it is.
_NAMES: Final = {"month": "%Y-%m", "day": "%Y-%m-%d %a", "hour": "%Y-%m-%d %H:%M", "quarter-hour": "%Y-%m-%d %H:%M"}


@click.command()
@click.argument("customer")
@click.argument("meter")
@click.option("--start", type=calling.Instant(), help="First instant; the first of this month when not given.")
@click.option("--end", type=calling.Instant(), help="First instant behind the range; now when not given.")
@click.option("--window", type=click.Choice(list(_WINDOWS)), default="day", show_default=True, help="Length of a row.")
@click.option(
    "--time-zone",
    "zone",
    type=calling.Zone(),
    help="Whose days and months count; the customer's when not given, UTC with --usage.",
)
@click.option(
    "--group-by", multiple=True, metavar="ATTRIBUTE", help="A row for each of its values; may be given again."
)
@click.option(
    "--only", multiple=True, metavar="ATTRIBUTE=VALUE", help="Only groups with this value; may be given several times."
)
@calling.usage
@options.data_dir
@calling.token
@calling.as_json
def usage(
    customer: str,
    meter: str,
    *,
    start: datetime | None,
    end: datetime | None,
    window: str,
    zone: ZoneInfo | None,
    group_by: tuple[str, ...],
    only: tuple[str, ...],
    address: str | None,
    data_dir: Path,
    token: str | None,
    as_json: bool,
) -> None:
    """Show what CUSTOMER (cus_…) used of METER.

    Times without an offset, and those that are shown, are of the time zone. Windows without usage are left out. Exits
    with 1 if the service cannot answer.
    """
    shown_in = zone or (UTC if address else _zone_of(customer, data_dir, token))
    now = datetime.now(shown_in)
    begin = _instant(start or now.replace(day=1, hour=0, minute=0, second=0, microsecond=0, tzinfo=None), shown_in)
    finish = _instant(end, shown_in) if end else _next_quarter(now)
    request = pb.QueryUsageRequest(
        customer_id=customer,
        meter=meter,
        start_time=begin,
        end_time=finish,
        window=pb.Window.ValueType(_WINDOWS[window]),
        time_zone=str(shown_in),
        group_by=group_by,
        group_filter=only,
    )
    with calling.usage_channel(address, data_dir, token) as channel:
        answer = usage_service_pb2_grpc.UsageServiceStub(channel).QueryUsage(request)
        found = meter_service_pb2_grpc.MeterServiceStub(channel).GetMeter(meters_pb.GetMeterRequest(meter_id=meter))
    if as_json:
        calling.print_json(_content(answer, found))
    else:
        _show(request, answer, found, window, shown_in)


def _show(
    request: pb.QueryUsageRequest, answer: pb.QueryUsageResponse, meter: meters_pb.Meter, window: str, zone: tzinfo
) -> None:
    unit = f" ({meter.unit})" if meter.unit not in {"", meter.id} else ""
    begin, end = calling.shown(request.start_time, zone), calling.shown(request.end_time, zone)
    console = calling.out()
    console.print(f"{request.meter}{unit} of {request.customer_id}\n{begin} to {end}, {zone}")
    if not answer.windows:
        console.print("Nothing was used.")
        return
    table = Table(
        window if window in _NAMES else "from", *request.group_by, "used", show_footer=len(answer.windows) > 1
    )
    used = table.columns[-1]
    used.justify = "right"
    used.footer = calling.grouped(answer.total)
    table.columns[0].footer = _TOTAL
    for each in answer.windows:
        name = each.start_time.ToDatetime(UTC).astimezone(zone).strftime(_NAMES.get(window, "%Y-%m-%d %H:%M"))
        table.add_row(name, *(each.group.get(group, "") for group in request.group_by), calling.grouped(each.value))
    console.print(table)
    console.print(f"Complete up to {calling.shown(answer.as_of, zone)}.", style="dim")


def _content(answer: pb.QueryUsageResponse, meter: meters_pb.Meter) -> dict[str, Any]:
    return {
        "meter": meter.id,
        "unit": meter.unit,
        "windows": [
            {
                "start_time": each.start_time.ToJsonString(),
                "end_time": each.end_time.ToJsonString(),
                "group": dict(each.group),
                "value": calling.number(each.value),
            }
            for each in answer.windows
        ],
        "total": calling.number(answer.total),
        "as_of": answer.as_of.ToJsonString(),
    }


def _zone_of(customer: str, data_dir: Path, token: str | None) -> tzinfo:
    """Return the customer's time zone as billing has it; UTC if billing does not say."""
    try:
        with open_channel(calling.running("billing", data_dir), token=token) as channel:
            stub = customer_service_pb2_grpc.CustomerServiceStub(channel)
            found = stub.GetCustomer(customer_service_pb2.GetCustomerRequest(customer_id=customer))
            return ZoneInfo(found.time_zone)
    except (grpc.RpcError, ZoneInfoNotFoundError):
        return UTC


def _instant(given: datetime, zone: tzinfo) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(given if given.tzinfo else given.replace(tzinfo=zone))
    return message


def _next_quarter(now: datetime) -> Timestamp:
    seconds = _QUARTER.total_seconds()
    return Timestamp(seconds=int(-(-now.timestamp() // seconds) * seconds))
