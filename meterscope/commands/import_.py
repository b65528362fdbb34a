"""`meterscope import`: usage from files."""

import sys
from dataclasses import asdict
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import click
import grpc
import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from meterscope import accesslog, callimport, logimport
from meterscope.client import Outcome, Undelivered
from meterscope.commands import calling, options
from meterscope.commands.import_events import import_events
from meterscope.connection import open_channel
from meterscope.logimport import Report, Source


@click.group("import")
def import_() -> None:
    """Import usage from files."""


import_.add_command(import_events)


@import_.command("accesslog")
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--usage", metavar="HOST:PORT", help="Address of the usage service; read from run.json when not given.")
@options.data_dir
@click.option("--source", default="accesslog", show_default=True, help="Source of the events, 1 to 256 bytes.")
@click.option("--customer-key", help="Customer of all lines; the client's address of each line when not given.")
@click.option("--shift-days", type=int, default=0, show_default=True, help="Whole days added to each time.")
@click.option("--token", envvar="METERSCOPE_SERVICE_TOKEN", help="Service token, if the services want one.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def import_accesslog(
    files: tuple[Path, ...],
    *,
    usage: str | None,
    data_dir: Path,
    source: str,
    customer_key: str | None,
    shift_days: int,
    token: str | None,
    as_json: bool,
) -> None:
    """Import access logs (combined or common format, plain or gzipped): one request is one event.

    Creates the meters `requests` (how many) and `bytes` (sent) where they are not there. An event's id is made of the
    file's name and the line's number: importing a file again counts nothing twice, and a log that was renamed counts
    as another one.

    Exits with 0 if every line went in, 3 if some could not be read or were refused (the others are in).
    """
    sources = [Source(path, timedelta(days=shift_days)) for path in files]
    console = Console(stderr=True, quiet=as_json)
    address = usage or calling.running("usage", data_dir)
    try:
        with open_channel(address, token=token) as channel:
            logimport.create_meters(channel)
        with progress(console) as bar:
            task = bar.add_task("importing", total=sum(accesslog.count(path) for path in files))
            report = logimport.run(
                address,
                sources,
                source=source,
                customer_key=customer_key,
                token=token,
                on_progress=lambda lines: bar.advance(task, lines),
            )
    except (OSError, ValueError, Undelivered) as error:
        raise click.ClickException(str(error)) from error
    except grpc.RpcError as error:
        raise click.ClickException(f"usage at {address}: {error.details()}") from error
    if as_json:
        print(orjson.dumps(_as_json(report), option=orjson.OPT_INDENT_2).decode())
    else:
        _show(report)
    if report.malformed or report.outcomes[Outcome.REJECTED] or report.outcomes[Outcome.CONFLICT]:
        sys.exit(calling.EXIT_REFUSED)


@import_.command("cdr")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--usage", metavar="HOST:PORT", help="Address of the usage service; read from run.json when not given.")
@options.data_dir
@click.option("--source", default="cdr", show_default=True, help="Source of the calls: the exchange that wrote them.")
@click.option(
    "--customer-key", default="", help="Customer of all rows by its key; the file's own column when not given."
)
@click.option("--customer-id", default="", help="Customer of all rows by its id.")
@click.option("--layout", type=click.Choice(["header", "asterisk"]), help="Told from the first row when not given.")
@click.option("--delimiter", type=click.Choice([",", ";", "tab", "|"]), help="Told when not given.")
@click.option("--encoding", default="utf-8", show_default=True, help="Or iso-8859-1, windows-1252.")
@click.option("--time-format", default="", help="iso, unix, or as in %d/%m/%Y %H:%M:%S; told when not given.")
@click.option("--time-zone", default="UTC", show_default=True, help="Zone of times without an offset.")
@click.option("--column", "columns", multiple=True, metavar="FIELD=NAME", help="A column by its name in the header.")
@click.option("--region", default="", help="Country of national numbers, such as IN.")
@click.option("--own-prefix", "own_prefixes", multiple=True, help="Beginning of the customer's own numbers, in E.164.")
@click.option("--extension-digits", type=int, default=0, help="Digits of the longest extension; 6 when not given.")
@click.option("--token", envvar="METERSCOPE_SERVICE_TOKEN", help="Service token, if the services want one.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def import_cdr(
    file: Path,
    *,
    usage: str | None,
    data_dir: Path,
    layout: str | None,
    delimiter: str | None,
    region: str,
    token: str | None,
    as_json: bool,
    **settings: Any,
) -> None:
    """Import call detail records: a CSV file with a header, or Asterisk's Master.csv; plain or gzipped.

    Creates the meters `calls` (how many) and `call_seconds` (billable), by type and country called, where they are not
    there. A call's id with its source makes it count once: importing a file again counts nothing twice.

    Exits with 0 if every row went in, 3 if some could not be read or were refused (the others are in).
    """
    first = callimport.request(
        layout=layout, delimiter="\t" if delimiter == "tab" else delimiter or "", default_region=region, **settings
    )
    console = Console(stderr=True, quiet=as_json)
    address = usage or calling.running("usage", data_dir)
    try:
        with open_channel(address, token=token) as channel:
            callimport.create_meters(channel)
            with calling.bytes_progress(console) as bar:
                task = bar.add_task("importing", total=file.stat().st_size)
                report = callimport.run(channel, file, first, on_progress=lambda done: bar.update(task, completed=done))
    except OSError as error:
        raise click.ClickException(str(error)) from error
    except grpc.RpcError as error:
        raise click.ClickException(f"usage at {address}: {error.details()}") from error
    if as_json:
        print(orjson.dumps(callimport.as_json(report), option=orjson.OPT_INDENT_2).decode())
    else:
        _show_calls(file, report)
    if report.response.rejected or report.response.conflict:
        sys.exit(calling.EXIT_REFUSED)


def progress(console: Console) -> Progress:
    """Return a progress bar that counts lines."""
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
    )


def _show_calls(file: Path, report: callimport.Report) -> None:
    console = Console()
    response = report.response
    table = Table("", "", show_header=False)
    table.columns[1].justify = "right"
    for name in ("rows", "accepted", "duplicate", "conflict", "quarantined", "rejected"):
        table.add_row(name, f"{getattr(response, name):,}")
    table.add_row("rows/s", f"{report.rows_per_second:,.0f}")
    console.print(table)
    if response.destinations:
        destinations = Table("country", "calls", "billable seconds")
        for column in destinations.columns[1:]:
            column.justify = "right"
        for each in response.destinations:
            seconds = f"{Decimal(each.billable_seconds.value):,f}"
            destinations.add_row(each.country or "internal", f"{each.calls:,}", seconds)
        console.print(destinations)
    for problem in response.problems:
        where = f" {problem.column}:" if problem.column else ""
        text = f"{file.name}:{problem.line}:{where} {problem.reason}: {problem.message}"
        console.print(text, highlight=False, markup=False, soft_wrap=True)
    hidden = response.rejected + response.conflict - len(response.problems)
    if hidden:
        console.print(f"… and {hidden:,} more rows that did not go in", highlight=False)
    if response.quarantined:
        console.print(f"{response.quarantined:,} calls are held until their customers are known", highlight=False)


def _as_json(report: Report) -> dict[str, Any]:
    return {
        "lines": report.lines,
        "malformed": report.malformed,
        **{outcome.name.lower(): report.outcomes[outcome] for outcome in Outcome},
        "bytes": str(report.bytes),
        "seconds": round(report.seconds, 3),
        "events_per_second": round(report.events_per_second),
        "problems": [asdict(problem) for problem in report.problems],
    }


def _show(report: Report) -> None:
    console = Console()
    table = Table("", "", show_header=False)
    table.columns[1].justify = "right"
    table.add_row("lines", f"{report.lines:,}")
    for outcome in Outcome:
        table.add_row(outcome.name.lower(), f"{report.outcomes[outcome]:,}")
    table.add_row("malformed", f"{report.malformed:,}")
    table.add_row("bytes", f"{report.bytes:,}")
    table.add_row("events/s", f"{report.events_per_second:,.0f}")
    console.print(table)
    for problem in report.problems:
        console.print(f"{problem.file}:{problem.line}: {problem.reason}", highlight=False, markup=False)
