"""`meterscope limits`: what a customer may use, and has used."""

from datetime import timedelta
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Final

import click
from google.type.decimal_pb2 import Decimal as DecimalMessage
from rich.console import Console
from rich.table import Table

from meterscope.commands import calling, options
from meterscope.usage.v1 import limit_service_pb2 as pb
from meterscope.usage.v1 import limit_service_pb2_grpc

_FULL: Final = 100
_NEARLY_FULL: Final = 80
_CHECK_SECONDS: Final = timedelta(seconds=5).total_seconds()
_KINDS: Final = {
    pb.LIMIT_KIND_HARD: "hard",
    pb.LIMIT_KIND_SOFT: "soft",
    pb.LIMIT_KIND_DEFAULT: "default",
    pb.LIMIT_KIND_NONE: "none",
}


@click.command()
@click.argument("customer")
@click.option("--check", "meter", metavar="METER", help="Ask whether more of this meter may be used.")
@click.option("--quantity", default="1", show_default=True, help="How much more, with --check.")
@calling.usage
@options.data_dir
@calling.token
@calling.as_json
def limits(
    customer: str,
    *,
    meter: str | None,
    quantity: str,
    address: str | None,
    data_dir: Path,
    token: str | None,
    as_json: bool,
) -> None:
    """Show the limits of CUSTOMER (cus_…) with what is used of them, or check one.

    A hard limit refuses more, a soft one charges it; the default stands where there is no plan. With --check it exits
    with 0 if the use is allowed, with 3 if it is refused, with 1 if the service cannot answer.
    """
    amount = _quantity(quantity)
    with calling.usage_channel(address, data_dir, token) as channel:
        stub = limit_service_pb2_grpc.LimitServiceStub(channel)
        if meter is not None:
            answer = stub.CheckLimit(
                pb.CheckLimitRequest(customer_id=customer, meter=meter, quantity=amount), timeout=_CHECK_SECONDS
            )
        else:
            found = _all(stub, customer)
    if meter is None:
        if as_json:
            calling.print_json({"limits": [_content(each) for each in found]})
        else:
            _show(customer, found)
        return
    if as_json:
        calling.print_json(_content(answer))
    else:
        _tell(calling.out(), answer, amount)
    if not answer.allowed:
        raise SystemExit(calling.EXIT_REFUSED)


def _quantity(text: str) -> DecimalMessage:
    try:
        Decimal(text)
    except InvalidOperation:
        raise click.BadParameter(f"{text!r} is no number", param_hint="--quantity") from None
    return DecimalMessage(value=text)


def _all(stub: limit_service_pb2_grpc.LimitServiceStub, customer: str) -> list[pb.CheckLimitResponse]:
    found: list[pb.CheckLimitResponse] = []
    request = pb.ListLimitsRequest(customer_id=customer, page_size=1_000)
    while True:
        page = stub.ListLimits(request)
        found += page.limits
        if not page.next_page_token:
            return found
        request.page_token = page.next_page_token


def _show(customer: str, found: list[pb.CheckLimitResponse]) -> None:
    console = calling.out()
    if not found:
        console.print(f"{customer} has no limits.")
        return
    has_reserved = any(Decimal(calling.number(each.reserved)) for each in found)
    names = ["meter", "kind", "used", *(["reserved"] if has_reserved else []), "limit", "%", "resets (UTC)"]
    table = Table(*names)
    for column in table.columns[2:-1]:
        column.justify = "right"
    for each in found:
        style = "red" if each.percentage >= _FULL else "yellow" if each.percentage >= _NEARLY_FULL else None
        table.add_row(
            each.meter,
            _KINDS.get(each.kind, ""),
            calling.grouped(each.used),
            *([calling.grouped(each.reserved)] if has_reserved else []),
            calling.grouped(each.limit) if each.HasField("limit") else "none",
            f"{each.percentage:.1f}" if each.HasField("limit") else "",
            calling.shown(each.reset_time) if each.HasField("reset_time") else "",
            style=style,
        )
    console.print(table)


def _tell(console: Console, answer: pb.CheckLimitResponse, quantity: DecimalMessage) -> None:
    verdict = "[green]allowed[/]" if answer.allowed else "[red]refused[/]"
    console.print(f"{verdict}: {calling.grouped(quantity)} more of {answer.meter}")
    table = Table.grid(padding=(0, 2))
    rows = {"used": calling.grouped(answer.used), "reserved": calling.grouped(answer.reserved)}
    if answer.HasField("limit"):
        kind = _KINDS.get(answer.kind, "")
        rows["limit"] = f"{calling.grouped(answer.limit)} ({kind})"
        rows["remaining"] = calling.grouped(answer.remaining)
    else:
        rows["limit"] = "none"
    if answer.HasField("reset_time"):
        rows["resets"] = f"{calling.shown(answer.reset_time)} UTC"
    for name, value in rows.items():
        table.add_row(f"  {name}", value)
    console.print(table)


def _content(answer: pb.CheckLimitResponse) -> dict[str, Any]:
    has_limit = answer.HasField("limit")
    return {
        "meter": answer.meter,
        "allowed": answer.allowed,
        "kind": pb.LimitKind.Name(answer.kind).removeprefix("LIMIT_KIND_"),
        "used": calling.number(answer.used),
        "reserved": calling.number(answer.reserved),
        "limit": calling.number(answer.limit) if has_limit else None,
        "remaining": calling.number(answer.remaining) if has_limit else None,
        "percentage": answer.percentage,
        "reset_time": answer.reset_time.ToJsonString() if answer.HasField("reset_time") else None,
        "answered_from": pb.AnsweredFrom.Name(answer.answered_from).removeprefix("ANSWERED_FROM_"),
        "as_of": answer.as_of.ToJsonString() if answer.HasField("as_of") else None,
    }
