"""`meterscope trace`: a trace as a tree."""

from pathlib import Path

import click
from rich.console import Console

from meterscope import traces


@click.command()
@click.argument("trace_id")
@click.option(
    "--file",
    "file",
    envvar="METERSCOPE_TRACE_FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=Path(".meterscope") / "traces.jsonl",
    show_default=True,
    help="Span file, as METERSCOPE_TRACE_FILE writes it.",
)
@click.option("--all", "is_all", is_flag=True, help="Every span: database statements, both sides of each call.")
def trace(trace_id: str, *, file: Path, is_all: bool) -> None:
    """Print the trace TRACE_ID (32 hex digits, or so many that no other one begins alike) as a tree."""
    try:
        spans = traces.of_trace(traces.read(file), trace_id)
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    found = {span.trace_id for span in spans}
    if not found:
        raise click.ClickException(f"no trace in {file} begins with {trace_id}")
    if len(found) > 1:
        raise click.ClickException(f"{len(found)} traces in {file} begin with {trace_id}: give more digits")
    tree = traces.draw(spans, alike=len(spans), is_shown=lambda _node: True) if is_all else traces.draw(spans)
    Console().print(tree)
