"""`meterscope meters`: what is counted, and how."""

import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console
from rich.table import Table

from meterscope.commands import calling, options
from meterscope.usage.v1 import meter_service_pb2 as pb
from meterscope.usage.v1 import meter_service_pb2_grpc

_AGGREGATIONS: Final = {
    name.removeprefix("AGGREGATION_").lower(): value for name, value in pb.Aggregation.items() if value
}
_OPERATORS: Final = {
    "=": pb.FILTER_OPERATOR_EQUALS,
    "<": pb.FILTER_OPERATOR_LESS,
    "<=": pb.FILTER_OPERATOR_LESS_OR_EQUAL,
    ">": pb.FILTER_OPERATOR_GREATER,
    ">=": pb.FILTER_OPERATOR_GREATER_OR_EQUAL,
}
_SIGNS: Final = {operator: sign for sign, operator in _OPERATORS.items()}
_COMPARED: Final = re.compile(r"(?P<attribute>[^<>=]+?)\s*(?P<sign><=|>=|<|>|=)\s*(?P<value>.*)", re.DOTALL)
_ONE_OF: Final = re.compile(r"(?P<attribute>[^<>=]+?)\s+in\s+(?P<values>.+)", re.DOTALL)
# How often a recount that is waited for is asked after.
_LOOK_SECONDS: Final = 0.5


@click.group()
def meters() -> None:
    """Meters: how events become quantities."""


@meters.command("list")
@calling.usage
@options.data_dir
@calling.token
@calling.as_json
def list_meters(address: str | None, data_dir: Path, token: str | None, *, as_json: bool) -> None:
    """List all meters."""
    found: list[pb.Meter] = []
    request = pb.ListMetersRequest(page_size=1_000)
    with calling.usage_channel(address, data_dir, token) as channel:
        stub = meter_service_pb2_grpc.MeterServiceStub(channel)
        while True:
            page = stub.ListMeters(request)
            found += page.meters
            if not page.next_page_token:
                break
            request.page_token = page.next_page_token
    if as_json:
        calling.print_json({"meters": [_content(meter) for meter in found]})
        return
    console = calling.out()
    if not found:
        console.print("There are no meters. `meterscope meters create --help` says how to make one.")
        return
    table = Table("meter", "counts", "unit", "since (UTC)")
    for meter in found:
        since = "archived" if meter.HasField("archive_time") else calling.shown(meter.create_time)[:10]
        table.add_row(meter.id, _described(meter), meter.unit, since)
    console.print(table)


@meters.command()
@click.argument("meter")
@calling.usage
@options.data_dir
@calling.token
@calling.as_json
def show(meter: str, *, address: str | None, data_dir: Path, token: str | None, as_json: bool) -> None:
    """Show METER."""
    with calling.usage_channel(address, data_dir, token) as channel:
        found = meter_service_pb2_grpc.MeterServiceStub(channel).GetMeter(pb.GetMeterRequest(meter_id=meter))
    _print(found, as_json=as_json)


@meters.command()
@click.argument("meter")
@click.option("--event-type", required=True, help="Type of the events that it counts, such as http.request.")
@click.option(
    "--aggregation", type=click.Choice(list(_AGGREGATIONS)), default="count", show_default=True, help="How it counts."
)
@click.option("--quantity", default="", help="Name of the quantity that sum, max, min, avg and latest take.")
@click.option("--attribute", default="", help="Name of the attribute whose values unique counts.")
@click.option("--unit", default="", help="Unit for people, such as requests or By.")
@click.option(
    "--filter", "filters", multiple=True, metavar="CONDITION", help="Only events with it; may be given several times."
)
@click.option("--group-by", multiple=True, metavar="ATTRIBUTE", help="Keep totals apart by it; may be given again.")
@click.option("--description", default="", help="What it is for.")
@click.option("--count-from", type=calling.Instant(), help="Count stored events from this time (UTC) on, too.")
@calling.usage
@options.data_dir
@calling.token
@calling.as_json
def create(
    meter: str,
    *,
    event_type: str,
    aggregation: str,
    quantity: str,
    attribute: str,
    unit: str,
    filters: tuple[str, ...],
    group_by: tuple[str, ...],
    description: str,
    count_from: datetime | None,
    address: str | None,
    data_dir: Path,
    token: str | None,
    as_json: bool,
) -> None:
    """Create METER: a lower-case letter, then letters, digits, `_`, `-`, `.`.

    A CONDITION is `status=200`, `status in 200,201`, `bytes>=1024` (also <, <=, >) or `status exists`.
    The same definition again changes nothing; another one of the same name is refused.
    """
    wanted = pb.Meter(
        id=meter,
        event_type=event_type,
        aggregation=pb.Aggregation.ValueType(_AGGREGATIONS[aggregation]),
        quantity=quantity,
        attribute=attribute,
        unit=unit,
        filters=[_filter(text) for text in filters],
        group_by=group_by,
        description=description,
    )
    if count_from is not None:
        wanted.count_from.FromDatetime(_utc(count_from))
    with calling.usage_channel(address, data_dir, token) as channel:
        made = meter_service_pb2_grpc.MeterServiceStub(channel).CreateMeter(pb.CreateMeterRequest(meter=wanted))
    _print(made, as_json=as_json)


@meters.command()
@click.argument("meter")
@calling.usage
@options.data_dir
@calling.token
@calling.as_json
def archive(meter: str, *, address: str | None, data_dir: Path, token: str | None, as_json: bool) -> None:
    """Have METER count no event that is taken in from now on. Its totals stay. Again, it changes nothing."""
    with calling.usage_channel(address, data_dir, token) as channel:
        found = meter_service_pb2_grpc.MeterServiceStub(channel).ArchiveMeter(pb.ArchiveMeterRequest(meter_id=meter))
    _print(found, as_json=as_json)


@meters.command()
@click.argument("meter")
@click.option("--unit", help="Unit for people, such as requests or By; '' takes it away.")
@click.option("--description", help="What it is for; '' takes it away.")
@calling.usage
@options.data_dir
@calling.token
@calling.as_json
def update(
    meter: str,
    *,
    unit: str | None,
    description: str | None,
    address: str | None,
    data_dir: Path,
    token: str | None,
    as_json: bool,
) -> None:
    """Change what people see of METER: what is not given stays. What it counts never changes."""
    if unit is None and description is None:
        raise click.UsageError("nothing to change: give --unit, --description or both")
    request = pb.UpdateMeterRequest(meter_id=meter, unit=unit, description=description)
    with calling.usage_channel(address, data_dir, token) as channel:
        found = meter_service_pb2_grpc.MeterServiceStub(channel).UpdateMeter(request)
    _print(found, as_json=as_json)


@meters.command()
@click.argument("meter")
@click.option(
    "--from",
    "count_from",
    type=calling.Instant(),
    help="Count events stored before METER was made, too: from this time (UTC) on.",
)
@click.option("--wait", is_flag=True, help="Return when it is done.")
@calling.usage
@options.data_dir
@calling.token
@calling.as_json
def recount(
    meter: str,
    *,
    count_from: datetime | None,
    wait: bool,
    address: str | None,
    data_dir: Path,
    token: str | None,
    as_json: bool,
) -> None:
    """Set METER's totals anew from stored events. Sealed totals stay.

    The service does it by itself: `meterscope meters show METER` says how far it is. While one is under way, no other
    is begun.
    """
    request = pb.RecountMeterRequest(meter_id=meter)
    if count_from is not None:
        request.count_from.FromDatetime(_utc(count_from))
    with calling.usage_channel(address, data_dir, token) as channel:
        stub = meter_service_pb2_grpc.MeterServiceStub(channel)
        found = stub.RecountMeter(request)
        if wait:
            found = _waited(stub, found, Console(stderr=True, quiet=as_json, highlight=False))
    _print(found, as_json=as_json)


def _waited(stub: meter_service_pb2_grpc.MeterServiceStub, meter: pb.Meter, console: Console) -> pb.Meter:
    """Return the meter when its recount is done; a terminal shows how far it is meanwhile."""
    with console.status(_recount(meter.recount)) as status:
        while meter.recount.state == pb.MeterRecount.STATE_RUNNING:
            time.sleep(_LOOK_SECONDS)
            meter = stub.GetMeter(pb.GetMeterRequest(meter_id=meter.id))
            status.update(_recount(meter.recount))
    return meter


def _utc(instant: datetime) -> datetime:
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)


def _filter(text: str) -> pb.MeterFilter:
    one_of = _ONE_OF.fullmatch(text)
    if one_of:
        values = [value.strip() for value in one_of["values"].split(",")]
        return pb.MeterFilter(attribute=one_of["attribute"], operator=pb.FILTER_OPERATOR_IN, values=values)
    compared = _COMPARED.fullmatch(text)
    if compared:
        operator = _OPERATORS[compared["sign"]]
        return pb.MeterFilter(attribute=compared["attribute"], operator=operator, values=[compared["value"]])
    return pb.MeterFilter(attribute=text.removesuffix(" exists"), operator=pb.FILTER_OPERATOR_EXISTS)


def _condition(condition: pb.MeterFilter) -> str:
    if condition.operator == pb.FILTER_OPERATOR_EXISTS:
        return f"{condition.attribute} exists"
    if condition.operator == pb.FILTER_OPERATOR_IN:
        return f"{condition.attribute} in {','.join(condition.values)}"
    return f"{condition.attribute}{_SIGNS[condition.operator]}{''.join(condition.values)}"


def _name(aggregation: pb.Aggregation.ValueType) -> str:
    return pb.Aggregation.Name(aggregation).removeprefix("AGGREGATION_")


def _described(meter: pb.Meter) -> str:
    taken = meter.quantity or meter.attribute
    parts = [f"{_name(meter.aggregation).lower()}{f'({taken})' if taken else ''} of {meter.event_type}"]
    if meter.filters:
        parts.append("if " + " and ".join(_condition(each) for each in meter.filters))
    if meter.group_by:
        parts.append("by " + ", ".join(meter.group_by))
    return ", ".join(parts)


def _print(meter: pb.Meter, *, as_json: bool) -> None:
    if as_json:
        calling.print_json(_content(meter))
        return
    table = Table.grid(padding=(0, 2))
    rows = {
        "meter": meter.id,
        "counts": _described(meter),
        "unit": meter.unit,
        "description": meter.description,
        "created": f"{calling.shown(meter.create_time)} UTC",
        "counts from": f"{calling.shown(meter.count_from)} UTC" if meter.HasField("count_from") else "",
        "recount": _recount(meter.recount) if meter.HasField("recount") else "",
        "archived": f"{calling.shown(meter.archive_time)} UTC" if meter.HasField("archive_time") else "",
    }
    for name, value in rows.items():
        if value:
            table.add_row(name, value)
    calling.out().print(table)


def _recount(job: pb.MeterRecount) -> str:
    if job.state == pb.MeterRecount.STATE_DONE:
        return f"done at {calling.shown(job.end_time)} UTC: {job.events_done:,} events"
    return f"under way: {job.customers_done:,} of {job.customers_total:,} customers, {job.events_done:,} events"


def _content(meter: pb.Meter) -> dict[str, Any]:
    return {
        "id": meter.id,
        "event_type": meter.event_type,
        "aggregation": _name(meter.aggregation),
        "quantity": meter.quantity,
        "attribute": meter.attribute,
        "unit": meter.unit,
        "filters": [
            {
                "attribute": each.attribute,
                "operator": pb.FilterOperator.Name(each.operator).removeprefix("FILTER_OPERATOR_"),
                "values": list(each.values),
            }
            for each in meter.filters
        ],
        "group_by": list(meter.group_by),
        "description": meter.description,
        "create_time": meter.create_time.ToJsonString(),
        "count_from": meter.count_from.ToJsonString() if meter.HasField("count_from") else None,
        "recount": {
            "state": pb.MeterRecount.State.Name(meter.recount.state).removeprefix("STATE_"),
            "customers_done": meter.recount.customers_done,
            "customers_total": meter.recount.customers_total,
            "events_done": meter.recount.events_done,
        }
        if meter.HasField("recount")
        else None,
        "archive_time": meter.archive_time.ToJsonString() if meter.HasField("archive_time") else None,
    }
