"""`meterscope demo`: from a real access log to a paid invoice, traced end to end."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
import grpc
import httpx
from rich.console import Console

from meterscope.client import MeterscopeError
from meterscope.commands import options
from meterscope.demo import report, trees
from meterscope.demo.errors import DemoFailed
from meterscope.demo.story import Options, Story
from meterscope.supervisor.errors import SupervisorError

if TYPE_CHECKING:
    from meterscope.demo.chapter import Chapter
    from meterscope.demo.stack import Stack

_EXAMPLES: Final = Path(__file__).parents[2] / "examples"
# Where nobody says how wide the output is.
_WIDTH: Final = 110
_TRACE_FILE: Final = "METERSCOPE_TRACE_FILE"
# The demo receives its webhook on loopback, and does not wait a day for money.
_SETTINGS: Final = {"METERSCOPE_ALLOW_PRIVATE_WEBHOOKS": "true", "METERSCOPE_PAYMENT_RETRY_DELAYS": "2"}


@click.command()
@options.data_dir
@options.port
@click.option("--keep", is_flag=True, help="Leave Meterscope running.")
@click.option("--limit-lines", type=click.IntRange(min=1), help="Use only the first N lines of each log.", metavar="N")
@click.option(
    "--examples",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=_EXAMPLES if _EXAMPLES.is_dir() else Path("examples"),
    show_default="the repository's",
    help="Folder with access-logs/ and plans/.",
)
@click.option("--token", envvar="METERSCOPE_SERVICE_TOKEN", help="Service token, if the services want one.")
def demo(
    data_dir: Path, port: int | None, *, keep: bool, limit_lines: int | None, examples: Path, token: str | None
) -> None:
    """Bill a month of real web traffic: 11,906 requests of three access logs.

    Starts Meterscope if none runs on the data folder, sends the logs through the client SDK, closes the month, collects
    the money through the sandbox provider, and checks every number against the logs themselves. A further run on the
    same folder counts nothing twice. Exits with 0 if all is as it must be.
    """
    data_dir = data_dir.absolute()
    trace_file = Path(os.environ.get(_TRACE_FILE) or data_dir / "traces.jsonl").absolute()
    environ = {**_SETTINGS, **os.environ, _TRACE_FILE: str(trace_file)}
    console = Console()
    if not console.is_terminal:
        console.width = _WIDTH
    chosen = Options(data_dir, examples, port, keep, limit_lines, trace_file, token, environ)
    try:
        _tell(chosen, console)
    except grpc.RpcError as error:
        raise click.ClickException(f"a call failed: {error.code().name}: {error.details()}") from error
    except (DemoFailed, SupervisorError, MeterscopeError, httpx.HTTPError, OSError) as error:
        raise click.ClickException(str(error)) from error


def _tell(chosen: Options, console: Console) -> None:
    chapter, running = Story(chosen, console).run()
    try:
        report.show(chapter, console)
        trees.show(chapter, console)
    except BaseException:
        running.stop()
        raise
    if not chosen.keep:
        running.stop()
    _point(chapter, chosen, running, console)


def _point(chapter: "Chapter", chosen: Options, running: "Stack", console: Console) -> None:
    console.print()
    if news := report.news(chapter):
        console.print(f"[bold]{news}[/]")
        console.print()
    stopped = running.is_ours and not chosen.keep
    console.print(
        "[bold]Where to look[/]" + (" (stopped now; `make demo KEEP=1` leaves it running)" if stopped else "")
    )
    gateway = f"http://{chapter.gateway}"
    places = {
        "dashboard": f"{gateway}/billing",
        "an invoice": f"{gateway}/v1/invoices/{chapter.invoices[chapter.state.customers[0]].id}:render?format=html",
        "API": f"{gateway}/docs",
        "its invoice, saved": str(chapter.page),
        "traces": f"{chosen.trace_file} (meterscope trace {chapter.bill_run_trace} --file …)",
        "logs": str(chosen.data_dir / "logs"),
    }
    for what, where in places.items():
        console.print(f"  {what:20}{where}", soft_wrap=True, markup=False, highlight=False)
    if chosen.keep and running.pid:
        console.print(f"  {'stop it with':20}kill -INT {running.pid}", highlight=False)
