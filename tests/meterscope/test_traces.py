"""Spans from a file or from Jaeger, drawn as a tree."""

import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console

from meterscope import traces
from meterscope.cli import main

TRACE = "0af7651916cd43dd8448eb211c80319c"


def span(number: int, name: str, *, parent: int | None = None, service: str = "usage", **given: Any) -> str:
    fields: dict[str, Any] = {
        "name": name,
        "context": {"trace_id": f"0x{TRACE}", "span_id": f"0x{number:016x}", "trace_state": "[]"},
        "kind": "SpanKind.SERVER",
        "parent_id": None if parent is None else f"0x{parent:016x}",
        "start_time": f"2026-10-01T12:00:{number:02}.000000Z",
        "end_time": f"2026-10-01T12:00:{number:02}.250000Z",
        "status": {"status_code": "UNSET"},
        "attributes": {},
        "events": [],
        "links": [],
        "resource": {"attributes": {"service.name": service}, "schema_url": ""},
    }
    return json.dumps(fields | given) + "\n"


def drawn(path: Path) -> str:
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(traces.draw(traces.of_trace(traces.read(path), TRACE[:8])))
    return console.export_text()


def test_a_trace_is_a_tree_of_processes(tmp_path: Path) -> None:
    file = tmp_path / "traces.jsonl"
    failed = {"status": {"status_code": "ERROR", "description": "no funds"}}
    file.write_text(
        span(2, "meterscope.usage.v1.EventService/IngestEvents", parent=1)
        + span(1, "import", service="client")
        + span(3, "charge", parent=2, service="payments", **failed)
    )
    text = drawn(file)
    assert "3 spans, 3 processes, 2.25 s" in text
    lines = text.splitlines()
    assert lines[1].startswith("└── client import  250.0 ms")
    assert lines[2].startswith("    └── usage EventService/IngestEvents")
    assert "✗ no funds" in lines[3]


def test_alike_siblings_are_counted(tmp_path: Path) -> None:
    file = tmp_path / "traces.jsonl"
    file.write_text(span(1, "run") + "".join(span(n, "job", parent=1) for n in range(2, 9)))
    text = drawn(file)
    assert text.count("usage job") == 2
    assert "… and 5 more job" in text


def test_a_span_whose_parent_is_elsewhere_is_a_root(tmp_path: Path) -> None:
    file = tmp_path / "traces.jsonl"
    file.write_text(span(1, "a", parent=77) + span(2, "b"))
    assert [node.span.name for node in traces.roots(list(traces.read(file)))] == ["a", "b"]


def test_a_line_that_is_still_being_written_is_left_out(tmp_path: Path) -> None:
    file = tmp_path / "traces.jsonl"
    file.write_text(span(1, "a") + span(2, "b")[:40])
    assert [one.name for one in traces.read(file)] == ["a"]


def test_a_file_of_something_else_is_named_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "traces.jsonl"
    file.write_text(span(1, "a") + '{"name": "x"}\n')
    with pytest.raises(ValueError, match=r"traces\.jsonl:2 is no span"):
        list(traces.read(file))


CALL = {"rpc.system.name": "grpc", "rpc.method": "a.b.Service/Do"}


@pytest.fixture
def plumbed(tmp_path: Path) -> Path:
    file = tmp_path / "traces.jsonl"
    file.write_text(
        span(1, "a.b.Service/Do", service="client", kind="SpanKind.CLIENT", attributes=CALL)
        + span(2, "a.b.Service/Do", parent=1, attributes=CALL)
        + span(3, "INSERT", parent=2, kind="SpanKind.CLIENT", attributes={"db.system.name": "postgresql"})
        + span(4, "send job", parent=2, kind="SpanKind.PRODUCER")
        + span(5, "process job", parent=4, service="usage-worker", kind="SpanKind.CONSUMER")
        + span(6, "a.b.Service/Tell", parent=5, service="usage-worker", kind="SpanKind.CLIENT", attributes=CALL)
        + span(7, "a.b.Service/Tell", parent=6, service="alerts", attributes=CALL)
    )
    return file


def test_a_tree_leaves_out_what_its_neighbours_tell(plumbed: Path) -> None:
    names = [line.lstrip("│├└─ ").partition("  ")[0] for line in drawn(plumbed).splitlines()[1:]]
    assert names == ["client Service/Do", "usage Service/Do", "usage-worker process job", "alerts Service/Tell"]


def test_the_command_draws_a_trace_by_the_beginning_of_its_id(plumbed: Path) -> None:
    result = CliRunner().invoke(main, ["trace", TRACE[:6], "--file", str(plumbed)])
    assert result.exit_code == 0
    assert TRACE in result.stdout
    assert "INSERT" not in result.stdout


def test_the_command_draws_every_span_on_request(plumbed: Path) -> None:
    result = CliRunner().invoke(main, ["trace", TRACE, "--all", "--file", str(plumbed)])
    assert [word in result.stdout for word in ("INSERT", "send job", "usage-worker Service/Tell")] == [True] * 3


def test_a_trace_that_is_not_there_is_an_error(plumbed: Path) -> None:
    result = CliRunner().invoke(main, ["trace", "ffff", "--file", str(plumbed)])
    assert result.exit_code == 1
    assert "begins with ffff" in result.stderr


def answered(*spans: dict[str, Any]) -> dict[str, Any]:
    """What Jaeger's query API answers, of spans that begin a second apart."""
    given = [
        {
            "traceID": TRACE,
            "spanID": f"{number:016x}",
            "operationName": "a.b.Service/Do",
            "references": [],
            "startTime": 1_790_000_000_000_000 + number * 1_000_000,
            "duration": 250_000,
            "tags": [{"key": "span.kind", "type": "string", "value": "server"}],
            "logs": [],
            "processID": "p1",
            **span,
        }
        for number, span in enumerate(spans, start=1)
    ]
    names = {"p1": {"serviceName": "client", "tags": []}, "p2": {"serviceName": "usage", "tags": []}}
    return {"data": [{"traceID": TRACE, "spans": given, "processes": names}]}


class Jaeger(HTTPServer):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.answers: dict[str, tuple[int, str]] = {}


class Answering(BaseHTTPRequestHandler):
    server: Jaeger

    def do_GET(self) -> None:
        status, body = self.server.answers.get(self.path, (404, '{"data":null,"errors":[{"code":404}]}'))
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_arguments: Any) -> None:
        """Say nothing."""


@pytest.fixture
def jaeger() -> Iterator[Jaeger]:
    """Answers as Jaeger does, by what a test puts into `answers` by path."""

    with Jaeger(("127.0.0.1", 0), Answering) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def ask(server: Jaeger, *arguments: str, **environ: str) -> Any:
    url = f"http://127.0.0.1:{server.server_port}"
    return CliRunner().invoke(main, ["trace", *arguments], env={"JAEGER_URL": url, **environ})


def test_jaeger_is_asked_for_a_trace(jaeger: Jaeger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    child = {"refType": "CHILD_OF", "traceID": TRACE, "spanID": f"{1:016x}"}
    link = {"refType": "FOLLOWS_FROM", "traceID": "b" * 32, "spanID": "1" * 16}
    tags = [
        {"key": "span.kind", "type": "string", "value": "client"},
        {"key": "error", "type": "bool", "value": True},
        {"key": "otel.status_description", "type": "string", "value": "no funds"},
        {"key": "meterscope.batch.events", "type": "int64", "value": 271},
    ]
    document = answered({}, {"references": [child, link], "processID": "p2", "tags": tags})
    jaeger.answers = {f"/api/traces/{TRACE}": (200, json.dumps(document))}
    result = ask(jaeger, TRACE)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert "2 spans, 2 processes, 1.25 s" in lines[0]
    assert lines[1].startswith("└── client Service/Do  250.0 ms")
    assert lines[2].startswith("    └── usage Service/Do  250.0 ms  271 events  ✗ no funds  ↪ bbbbbbbb")


def test_a_file_that_is_named_stands_before_jaeger_of_the_environment(jaeger: Jaeger, plumbed: Path) -> None:
    assert ask(jaeger, TRACE[:6], "--file", str(plumbed)).exit_code == 0
    assert ask(jaeger, TRACE[:6], METERSCOPE_TRACE_FILE=str(plumbed)).exit_code == 0
    named = ask(jaeger, TRACE, "--jaeger", f"http://127.0.0.1:{jaeger.server_port}", METERSCOPE_TRACE_FILE=str(plumbed))
    assert f"no trace in http://127.0.0.1:{jaeger.server_port} begins with {TRACE}" in named.stderr


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (404, '{"data":null}', "no trace in"),
        (503, "busy", "does not answer: Server error '503"),
        (200, "<html>", "does not answer as Jaeger does"),
        (200, '{"data": [{"spans": 1, "processes": {}}]}', "does not answer as Jaeger does"),
        (200, '{"data": null}', "no trace in"),
    ],
)
def test_what_jaeger_does_not_answer_is_said(jaeger: Jaeger, status: int, body: str, said: str) -> None:
    jaeger.answers = {f"/api/traces/{TRACE}": (status, body)}
    result = ask(jaeger, TRACE)
    assert result.exit_code == 1
    assert said in result.stderr


@pytest.mark.parametrize("given", [TRACE[:31], TRACE[:-1] + "g", TRACE + "0"])
def test_jaeger_needs_the_whole_id(jaeger: Jaeger, given: str) -> None:
    assert f"{given} has not the 32 hex digits" in ask(jaeger, given).stderr


def test_without_file_and_jaeger_both_ways_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("JAEGER_URL", raising=False)
    result = CliRunner().invoke(main, ["trace", TRACE])
    assert result.exit_code == 1
    assert "name one with --file, or a Jaeger with --jaeger" in result.stderr
    assert "does not answer" in CliRunner().invoke(main, ["trace", TRACE, "--jaeger", "http://127.0.0.1:1"]).stderr
