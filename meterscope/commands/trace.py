"""`meterscope trace`: a trace as a tree."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click
import httpx
from rich.console import Console

from meterscope import traces

_FILE: Final = Path(".meterscope") / "traces.jsonl"
_DIGITS: Final = 32
_SECONDS: Final = 30


@click.command()
@click.argument("trace_id")
@click.option(
    "--file",
    "file",
    envvar="METERSCOPE_TRACE_FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help=f"Span file, as METERSCOPE_TRACE_FILE writes it.  [default: {_FILE}]",
)
@click.option(
    "--jaeger",
    "jaeger",
    envvar="JAEGER_URL",
    help="Ask Jaeger at this base URL, such as http://127.0.0.1:16686, instead; needs all 32 digits.",
)
@click.option("--all", "is_all", is_flag=True, help="Every span: database statements, both sides of each call.")
@click.pass_context
def trace(context: click.Context, trace_id: str, *, file: Path | None, jaeger: str | None, is_all: bool) -> None:
    """Print the trace TRACE_ID (32 hex digits, or so many that no other one begins alike) as a tree."""
    # What the command line says stands before what the environment says.
    is_asked = context.get_parameter_source("jaeger") is click.core.ParameterSource.COMMANDLINE
    if jaeger and (is_asked or file is None):
        where, spans = jaeger, _from_jaeger(jaeger, trace_id)
    else:
        file = file or _FILE
        where, spans = str(file), _from_file(file, trace_id)
    found = {span.trace_id for span in spans}
    if not found:
        raise click.ClickException(f"no trace in {where} begins with {trace_id}")
    if len(found) > 1:
        raise click.ClickException(f"{len(found)} traces in {where} begin with {trace_id}: give more digits")
    tree = traces.draw(spans, alike=len(spans), is_shown=lambda _node: True) if is_all else traces.draw(spans)
    Console().print(tree)


def _from_file(file: Path, trace_id: str) -> Sequence[traces.Span]:
    try:
        return traces.of_trace(traces.read(file), trace_id)
    except FileNotFoundError as error:
        raise click.ClickException(
            f"there is no span file {file}: name one with --file, or a Jaeger with --jaeger"
        ) from error
    except ValueError as error:
        raise click.ClickException(str(error)) from error


def _from_jaeger(url: str, trace_id: str) -> Sequence[traces.Span]:
    wanted = trace_id.lower().removeprefix("0x")
    if len(wanted) != _DIGITS or not set(wanted) <= set("0123456789abcdef"):
        raise click.ClickException(f"{trace_id} has not the 32 hex digits that Jaeger finds a trace by")
    try:
        answer = httpx.get(f"{url.rstrip('/')}/api/traces/{wanted}", timeout=_SECONDS)
        if answer.status_code == httpx.codes.NOT_FOUND:
            return []
        found = answer.raise_for_status().json()["data"] or []
        return traces.of_trace([span for each in found for span in traces.from_jaeger(each)], wanted)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise click.ClickException(f"Jaeger at {url} does not answer: {error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise click.ClickException(f"{url} does not answer as Jaeger does: {error!r}") from error
