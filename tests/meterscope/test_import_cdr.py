"""`meterscope import cdr`, typed as a user would, against a small server in usage's place. The calls are made up."""

import gzip
import json
from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest
from click.testing import CliRunner, Result

from meterscope.cli import main
from meterscope.usage.v1 import call_record_service_pb2 as pb
from meterscope.usage.v1 import call_record_service_pb2_grpc, meter_service_pb2_grpc
from meterscope.usage.v1 import event_service_pb2 as events_pb
from meterscope.usage.v1 import meter_service_pb2 as meter_pb

TEXT = b"id,to,start\n1,+442079460018,2026-10-05 10:00:00\n2,nobody,2026-10-05 10:00:00\n"


@dataclass
class FakeCalls(call_record_service_pb2_grpc.CallRecordServiceServicer, meter_service_pb2_grpc.MeterServiceServicer):
    """Keeps what it is sent and answers what it is told to."""

    answer: pb.ImportCallRecordsResponse
    requests: list[pb.ImportCallRecordsRequest] = field(default_factory=list)
    metadata: dict[str, str] = field(default_factory=dict)
    meters: list[meter_pb.Meter] = field(default_factory=list)

    def ImportCallRecords(
        self, request_iterator: Iterator[pb.ImportCallRecordsRequest], context: grpc.ServicerContext
    ) -> pb.ImportCallRecordsResponse:
        self.metadata = {key: str(value) for key, value in context.invocation_metadata()}
        self.requests = list(request_iterator)
        if self.requests[0].time_zone == "Mars/Olympus":
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "time_zone: no such zone")
        return self.answer

    def CreateMeter(self, request: meter_pb.CreateMeterRequest, context: grpc.ServicerContext) -> meter_pb.Meter:
        self.meters.append(request.meter)
        return request.meter

    @property
    def sent(self) -> bytes:
        return b"".join(request.chunk for request in self.requests)


Start = Callable[[pb.ImportCallRecordsResponse], tuple[FakeCalls, str]]


@pytest.fixture
def start() -> Iterator[Start]:
    servers: list[grpc.Server] = []

    def starter(answer: pb.ImportCallRecordsResponse) -> tuple[FakeCalls, str]:
        servicer = FakeCalls(answer)  # type: ignore[abstract]
        server = grpc.server(futures.ThreadPoolExecutor(2))
        call_record_service_pb2_grpc.add_CallRecordServiceServicer_to_server(servicer, server)
        meter_service_pb2_grpc.add_MeterServiceServicer_to_server(servicer, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        servers.append(server)
        return servicer, f"127.0.0.1:{port}"

    yield starter
    for server in servers:
        server.stop(None).wait(5)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "calls.csv"
    path.write_bytes(TEXT)
    return path


def answered(**counts: int) -> pb.ImportCallRecordsResponse:
    answer = pb.ImportCallRecordsResponse(
        layout=pb.CALL_RECORD_LAYOUT_HEADER, delimiter=",", time_format="iso", **counts
    )  # type: ignore[arg-type]
    answer.destinations.add(country="GB", calls=1_234).billable_seconds.value = "5678.5"
    return answer


def with_problem() -> pb.ImportCallRecordsResponse:
    answer = answered(rows=2, accepted=1, rejected=1)
    answer.problems.add(
        line=3, column="to", outcome=events_pb.OUTCOME_REJECTED, reason="BAD_NUMBER", message="'nobody' is no number"
    )
    return answer


def typed(address: str, file: Path, *options: str) -> Result:
    return CliRunner().invoke(main, ["import", "cdr", str(file), "--usage", address, *options])


def test_bad_rows_are_listed_and_the_result_shown(start: Start, file: Path) -> None:
    servicer, address = start(with_problem())
    result = typed(address, file)
    assert result.exit_code == 3, result.output
    assert "calls.csv:3: to: BAD_NUMBER: 'nobody' is no number" in result.stdout
    assert "1,234" in result.stdout
    assert "5,678.5" in result.stdout
    assert servicer.sent == TEXT
    assert {meter.id: list(meter.group_by) for meter in servicer.meters} == {
        "calls": ["call_type", "country"],
        "call_seconds": ["call_type", "country"],
    }


def test_rows_beyond_the_list_are_counted(start: Start, file: Path) -> None:
    answer = with_problem()
    answer.rejected = 2_500
    assert "… and 2,499 more rows that did not go in" in typed(start(answer)[1], file).stdout


def test_programs_get_json(start: Start, file: Path) -> None:
    _, address = start(with_problem())
    report = json.loads(typed(address, file, "--json").stdout)
    assert (report["rows"], report["accepted"], report["rejected"], report["layout"]) == (2, 1, 1, "HEADER")
    assert report["problems"] == [
        {
            "line": 3,
            "column": "to",
            "outcome": "REJECTED",
            "reason": "BAD_NUMBER",
            "message": "'nobody' is no number",
        }
    ]
    assert report["destinations"] == [{"country": "GB", "calls": 1234, "billable_seconds": "5678.5"}]


def test_a_clean_import_exits_with_0_whatever_is_held_or_known_already(start: Start, file: Path) -> None:
    _, address = start(answered(rows=9, accepted=3, duplicate=4, quarantined=2))
    result = typed(address, file)
    assert result.exit_code == 0
    assert "2 calls are held until their customers are known" in result.stdout


def test_options_travel_in_the_first_message(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "Master.csv.gz"
    path.write_bytes(gzip.compress(TEXT))
    servicer, address = start(answered())
    options = [
        *("--customer-key", "acme", "--source", "pbx-1", "--layout", "asterisk", "--delimiter", "tab"),
        *("--encoding", "iso-8859-1", "--time-format", "unix", "--time-zone", "Asia/Kolkata", "--region", "IN"),
        *("--column", "callee=To", "--own-prefix", "+4420", "--extension-digits", "4", "--token", "secret"),
    ]
    assert typed(address, path, *options).exit_code == 0
    assert servicer.requests[0] == pb.ImportCallRecordsRequest(
        customer_key="acme",
        source="pbx-1",
        layout=pb.CALL_RECORD_LAYOUT_ASTERISK,
        delimiter="\t",
        encoding="iso-8859-1",
        time_format="unix",
        time_zone="Asia/Kolkata",
        columns=["callee=To"],
        default_region="IN",
        own_prefixes=["+4420"],
        extension_digits=4,
    )
    assert servicer.sent == TEXT
    assert servicer.metadata["authorization"] == "Bearer secret"


def test_what_usage_refuses_is_said(start: Start, file: Path) -> None:
    _, address = start(answered())
    result = typed(address, file, "--time-zone", "Mars/Olympus")
    assert result.exit_code == 1
    assert "time_zone: no such zone" in result.stderr


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_broken_archive_is_said(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "calls.csv.gz"
    path.write_bytes(gzip.compress(TEXT * 1000)[:-20])
    result = typed(start(answered())[1], path)
    assert result.exit_code == 1
    assert "calls.csv.gz" in result.stderr


def test_nothing_running_is_said_with_what_to_do(tmp_path: Path, file: Path) -> None:
    result = CliRunner().invoke(main, ["import", "cdr", str(file), "--data-dir", str(tmp_path)])
    assert result.exit_code == 1
    assert "start `meterscope up`, or name --usage" in result.stderr
