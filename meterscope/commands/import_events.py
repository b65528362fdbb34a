"""`meterscope import events`."""

from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from meterscope import eventimport
from meterscope.commands import calling, options
from meterscope.eventimport import ImportFailed, Report

_OUTCOMES = ("ACCEPTED", "DUPLICATE", "QUARANTINED", "CONFLICT", "REJECTED")


@click.command("events")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--gateway", metavar="HOST:PORT", help="Address of the gateway; read from run.json when not given.")
@options.data_dir
@calling.as_json
def import_events(file: Path, *, gateway: str | None, data_dir: Path, as_json: bool) -> None:
    """Import events from FILE: one JSON object a line, plain or gzipped.

    A line with `specversion` is a CloudEvent 1.0 (`subject` names the customer), any other one an event as
    /v1/events:ingest takes it. Each has an id of its own: importing a file again counts nothing twice.

    Exits with 0 if every line went in, 3 if some were refused (the others are in), 1 if the gateway does not answer.
    """
    address = gateway or calling.running("gateway", data_dir)
    try:
        with calling.bytes_progress(Console(stderr=True, quiet=as_json)) as bar:
            task = bar.add_task("importing", total=file.stat().st_size)
            report = eventimport.run(address, file, on_progress=lambda done: bar.update(task, completed=done))
    except (OSError, ImportFailed) as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        calling.print_json(
            {
                "lines": report.lines,
                **{name.lower(): report.outcomes[name] for name in _OUTCOMES},
                "seconds": round(report.seconds, 3),
                "problems": [asdict(problem) for problem in report.problems],
            }
        )
    else:
        _show(file, report)
    if report.outcomes["REJECTED"] or report.outcomes["CONFLICT"]:
        raise SystemExit(calling.EXIT_REFUSED)


def _show(file: Path, report: Report) -> None:
    console = calling.out()
    table = Table("", "", show_header=False)
    table.columns[1].justify = "right"
    table.add_row("lines", f"{report.lines:,}")
    for name in _OUTCOMES:
        table.add_row(name.lower(), f"{report.outcomes[name]:,}")
    table.add_row("lines/s", f"{report.lines / report.seconds if report.seconds else 0:,.0f}")
    console.print(table)
    for problem in report.problems:
        where = f" {problem.field}:" if problem.field else ""
        text = f"{file.name}:{problem.line}:{where} {problem.reason}: {problem.message}"
        console.print(text, markup=False, soft_wrap=True)
    hidden = report.outcomes["REJECTED"] + report.outcomes["CONFLICT"] - len(report.problems)
    if hidden:
        console.print(f"… and {hidden:,} more that did not go in")
    if held := report.outcomes["QUARANTINED"]:
        console.print(f"{held:,} held in quarantine until their customers and types are known")
