"""Imports files of call detail records: they are sent as they are, and usage reads them."""

import gzip
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

import grpc
from google.protobuf.json_format import MessageToDict

from meterscope.usage.v1 import call_record_service_pb2 as pb
from meterscope.usage.v1 import call_record_service_pb2_grpc, meter_service_pb2_grpc
from meterscope.usage.v1 import meter_service_pb2 as meter_pb

EVENT_TYPE: Final = "call.record"
_CHUNK_BYTES: Final = 256 * 1024
_DEADLINE_SECONDS: Final = 6 * 3600.0
_LAYOUTS: Final = {
    None: pb.CALL_RECORD_LAYOUT_UNSPECIFIED,
    "header": pb.CALL_RECORD_LAYOUT_HEADER,
    "asterisk": pb.CALL_RECORD_LAYOUT_ASTERISK,
}


@dataclass(frozen=True)
class Report:
    """What became of a file, and how long it took."""

    response: pb.ImportCallRecordsResponse
    seconds: float

    @property
    def rows_per_second(self) -> float:
        """How many rows were judged a second."""
        return self.response.rows / self.seconds if self.seconds else 0.0


def request(*, layout: str | None, **settings: Any) -> pb.ImportCallRecordsRequest:
    """Return the first request, which says how the file is to be read.

    Args:
        layout: `header`, `asterisk`, or None to have it told.
        settings: the other fields.
    """
    return pb.ImportCallRecordsRequest(layout=_LAYOUTS[layout], **settings)


def create_meters(channel: grpc.Channel) -> None:
    """Create the meters `calls` and `call_seconds`, by type and country called, unless they are there.

    Raises:
        grpc.RpcError: ALREADY_EXISTS if they are defined otherwise.
    """
    stub = meter_service_pb2_grpc.MeterServiceStub(channel)
    for meter in (
        meter_pb.Meter(
            id="calls",
            event_type=EVENT_TYPE,
            aggregation=meter_pb.AGGREGATION_COUNT,
            unit="calls",
            group_by=["call_type", "country"],
        ),
        meter_pb.Meter(
            id="call_seconds",
            event_type=EVENT_TYPE,
            aggregation=meter_pb.AGGREGATION_SUM,
            quantity="billable_seconds",
            unit="s",
            group_by=["call_type", "country"],
        ),
    ):
        stub.CreateMeter(meter_pb.CreateMeterRequest(meter=meter))


def run(
    channel: grpc.Channel,
    path: Path,
    first: pb.ImportCallRecordsRequest,
    *,
    on_progress: Callable[[int], None] = lambda _bytes: None,
) -> Report:
    """Send a file, plain or gzipped, and return what became of it.

    Args:
        channel: to usage.
        path: the file.
        first: how it is to be read.
        on_progress: told how many bytes of the file are sent.

    Raises:
        OSError: the file cannot be read; what was sent may be in.
        grpc.RpcError: usage refused it, or is away; sending it again is safe.
    """
    started = time.perf_counter()
    faults: list[OSError] = []

    def requests() -> Iterator[pb.ImportCallRecordsRequest]:
        yield first
        try:
            with _opened(path) as (content, raw):
                while chunk := content.read(_CHUNK_BYTES):
                    yield pb.ImportCallRecordsRequest(chunk=chunk)
                    on_progress(raw.tell())
        except (OSError, EOFError) as error:
            # grpcio would say no more than that the stream broke.
            faults.append(error if isinstance(error, OSError) else OSError(f"{path}: {error}"))
            raise

    stub = call_record_service_pb2_grpc.CallRecordServiceStub(channel)
    try:
        response = stub.ImportCallRecords(requests(), timeout=_DEADLINE_SECONDS)
    except grpc.RpcError as error:
        if faults:
            raise faults[0] from error
        raise
    return Report(response, time.perf_counter() - started)


def as_json(report: Report) -> dict[str, Any]:
    """Return a report for programs."""
    found = MessageToDict(report.response, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    for name in ("rows", "accepted", "duplicate", "conflict", "quarantined", "rejected"):
        found[name] = getattr(report.response, name)
    for problem in found["problems"]:
        problem["outcome"] = problem["outcome"].removeprefix("OUTCOME_")
    for destination, each in zip(found["destinations"], report.response.destinations, strict=True):
        destination["calls"] = each.calls
        destination["billable_seconds"] = each.billable_seconds.value
    found["layout"] = found["layout"].removeprefix("CALL_RECORD_LAYOUT_")
    found["seconds"] = round(report.seconds, 3)
    found["rows_per_second"] = round(report.rows_per_second)
    return found


@contextmanager
def _opened(path: Path) -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """Open a file; give its content and the file itself, whose position is the progress."""
    with path.open("rb") as raw:
        if path.suffix == ".gz":
            with gzip.open(raw) as content:
                yield cast("BinaryIO", content), raw
        else:
            yield raw, raw
