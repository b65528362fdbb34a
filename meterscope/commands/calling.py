"""What commands that ask a running service have in common: its address, its errors, and how things are shown."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, tzinfo
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, NoReturn
from zoneinfo import ZoneInfo

import click
import grpc
import orjson
from google.protobuf.timestamp_pb2 import Timestamp
from google.type.decimal_pb2 import Decimal as DecimalMessage
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn

from meterscope.connection import open_channel
from meterscope.supervisor.runfile import Run

# The command did what was asked, and the answer is that not all is well: lines that did not go in, a limit that refuses.
EXIT_REFUSED: Final = 3

usage = click.option(
    "--usage", "address", metavar="HOST:PORT", help="Address of the usage service; read from run.json when not given."
)
token = click.option("--token", envvar="METERSCOPE_SERVICE_TOKEN", help="Service token, if the services want one.")
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


class Zone(click.ParamType[ZoneInfo]):
    """An IANA time zone."""

    name = "zone"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> ZoneInfo:
        """Return the zone."""
        if isinstance(value, ZoneInfo):
            return value
        try:
            return ZoneInfo(value)
        except (ValueError, OSError, KeyError):
            self.fail(f"{value!r} is no IANA time zone; give one such as Asia/Kolkata", param, ctx)


class Instant(click.ParamType[datetime]):
    """A date, or a date and time with or without an offset."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Return the time, without a zone if none was given."""
        if isinstance(value, datetime):
            return value
        try:
            return datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is no time; give 2026-01-31, 2026-01-31T18:30 or 2026-01-31T18:30:00Z", param, ctx)


def running(name: str, data_dir: Path) -> str:
    """Return the address of a process of the Meterscope that runs on the data folder.

    Raises:
        click.ClickException: none runs there.
    """
    run = Run.read(data_dir)
    if run is None:
        raise click.ClickException(f"nothing runs on {data_dir}: start `meterscope up`, or name --{name}")
    return run.addresses[name]


@contextmanager
def usage_channel(address: str | None, data_dir: Path, token: str | None) -> Iterator[grpc.Channel]:
    """Open a channel to the usage service; a failed call is an error of the command.

    Raises:
        click.ClickException: with what the service said.
    """
    found = address or running("usage", data_dir)
    with open_channel(found, token=token) as channel:
        try:
            yield channel
        except grpc.RpcError as error:
            _fail(found, error)


def _fail(address: str, error: grpc.RpcError) -> NoReturn:
    call: Any = error
    if call.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}:
        raise click.ClickException(f"usage at {address} does not answer: {call.details()}") from error
    raise click.ClickException(call.details() or call.code().name) from error


def out() -> Console:
    """Return where tables go."""
    return Console(highlight=False)


def bytes_progress(console: Console) -> Progress:
    """Return a progress bar that counts a file's bytes."""
    return Progress(
        TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeElapsedColumn(), console=console
    )


def print_json(content: Any) -> None:
    """Print what programs read."""
    click.echo(orjson.dumps(content, option=orjson.OPT_INDENT_2))


def number(message: DecimalMessage) -> str:
    """Return a quantity for programs."""
    return message.value or "0"


def grouped(message: DecimalMessage) -> str:
    """Return a quantity for people."""
    return f"{Decimal(number(message)):,f}"


def shown(message: Timestamp, zone: tzinfo = UTC) -> str:
    """Return an instant for people, to the minute."""
    return f"{message.ToDatetime(UTC).astimezone(zone):%Y-%m-%d %H:%M}"
