import asyncio
import contextlib
import gc
import io
import json
import logging
import logging.handlers
import sys
import threading
from collections.abc import Callable, Iterator

import pytest
import uvloop
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Tracer

from services.kit import logs, telemetry

# 4242 4242 4242 4242 is a published test number that passes the Luhn check; with …4241 it does not.
CARD = "4242 4242 4242 4242"


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    out = io.StringIO()
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    hooks = sys.excepthook, sys.unraisablehook, threading.excepthook
    monkeypatch.setattr(sys, "stdout", out)
    logs.setup("INFO", {"service": "usage", "version": "1.2.3", "environment": "test"})
    yield out
    root.handlers = before
    sys.excepthook, sys.unraisablehook, threading.excepthook = hooks
    root.setLevel(level)
    logging.captureWarnings(capture=False)


def last(out: io.StringIO) -> dict[str, object]:
    line: dict[str, object] = json.loads(out.getvalue().splitlines()[-1])
    return line


def test_a_line_carries_service_trace_and_its_own_fields(lines: io.StringIO) -> None:
    tracer = TracerProvider().get_tracer("test")
    with tracer.start_as_current_span("work") as span, telemetry.customer("cus_1"):
        logging.getLogger("services.usage").warning("near the limit", extra={"meter": "requests", "used": 80})
    line = last(lines)
    assert line["message"] == "near the limit"
    assert (line["level"], line["service"], line["version"]) == ("WARN", "usage", "1.2.3")
    assert (line["meter"], line["used"], line["customer_id"]) == ("requests", 80, "cus_1")
    assert line["trace_id"] == f"{span.get_span_context().trace_id:032x}"
    assert line["span_id"] == f"{span.get_span_context().span_id:016x}"


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("could not reach postgresql://user:hunter2@db/usage", "hunter2"),
        ("login failed, password=hunter2", "hunter2"),
        ('body {"token": "hunter2"}', "hunter2"),
        ("authorization: Bearer eyJhbGciOi.eyJzdWIi", "eyJhbGciOi.eyJzdWIi"),
        ("mail to person@example.org bounced", "person@example.org"),
        (f"card {CARD} declined", CARD),
        ("card 4242424242424242 declined", "4242424242424242"),
        ("key sk_test_abcdef123456 refused", "sk_test_abcdef123456"),
        ("signed with whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
    ],
)
def test_secrets_reach_no_log_line(lines: io.StringIO, text: str, secret: str) -> None:
    log = logging.getLogger("services.payments")
    try:
        raise ValueError(text)
    except ValueError:
        log.exception("failed: %s", text, extra={"api_key": secret, "detail": {"notes": [text]}})
    assert secret not in lines.getvalue()
    assert "ValueError" in lines.getvalue()


def test_an_exception_is_logged_with_its_stack(lines: io.StringIO) -> None:
    try:
        raise KeyError("x")
    except KeyError:
        logging.getLogger("services.usage").exception("lost")
    line = last(lines)
    assert line["exception.type"] == "KeyError"
    assert "test_logs.py" in str(line["exception.stacktrace"])


def test_what_nobody_caught_is_logged(lines: io.StringIO) -> None:
    error = RuntimeError("nobody caught me")
    sys.excepthook(RuntimeError, error, None)
    assert last(lines)["level"] == "FATAL"
    assert last(lines)["exception.message"] == "nobody caught me"


def test_a_collector_that_is_away_is_complained_of_once_a_minute(lines: io.StringIO) -> None:
    exporter = logging.getLogger("opentelemetry.exporter.otlp")
    start = 1_700_000_000.0
    for second in range(120):
        failed = logging.LogRecord(exporter.name, logging.ERROR, "exporter.py", 7, f"failed {second}", None, None)
        failed.created = start + second
        exporter.handle(failed)
    assert [json.loads(line)["message"] for line in lines.getvalue().splitlines()] == ["failed 0", "failed 60"]


def test_what_exporters_say_is_not_exported(lines: io.StringIO, capsys: pytest.CaptureFixture[str]) -> None:
    exported = logging.handlers.BufferingHandler(capacity=100)
    logs.setup("INFO", {}, (exported,))
    logging.getLogger("opentelemetry.exporter.otlp").error("failed")
    logging.getLogger("services.usage").warning("near the limit")
    assert [record.getMessage() for record in exported.buffer] == ["near the limit"]
    assert "failed" in capsys.readouterr().out
    assert not lines.getvalue()


def test_a_field_of_a_line_stands_for_none_of_ours(lines: io.StringIO) -> None:
    logging.getLogger("services.usage").info("moved", extra={"service": "other", "level": "mine", "to": "b"})
    assert (last(lines)["service"], last(lines)["level"], last(lines)["to"]) == ("usage", "INFO", "b")


@pytest.mark.usefixtures("lines")
def test_every_output_gets_the_request_and_the_customer() -> None:
    exported = logging.handlers.BufferingHandler(capacity=100)
    logs.setup("INFO", {}, [exported])
    token = logs.request_id.set("req-1")
    with telemetry.customer("cus_1"):
        logging.getLogger("services.usage").info("near the limit")
    logs.request_id.reset(token)
    (record,) = exported.buffer
    assert (vars(record)["request_id"], vars(record)["customer_id"]) == ("req-1", "cus_1")


@pytest.mark.usefixtures("lines")
def test_an_output_that_needs_the_exception_gets_it_before_it_is_redacted() -> None:
    seen = []

    class Reporter(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(record.exc_info)

    logs.setup("INFO", {}, unredacted=[Reporter(level=logging.ERROR)])
    error = ValueError("nobody@example.org")
    logging.getLogger("services.usage").error("failed", exc_info=error)
    logging.getLogger("services.usage").warning("not reported", exc_info=error)
    assert [info[1] for info in seen if info] == [error]


@pytest.fixture
def tracer() -> Tracer:
    provider = TracerProvider()
    provider.add_span_processor(logs.RaisedIn())
    return provider.get_tracer("test")


def test_an_uncaught_error_of_a_thread_is_logged_under_the_span_it_was_raised_in(
    lines: io.StringIO, tracer: Tracer
) -> None:
    ids = []

    def fail() -> None:
        with tracer.start_as_current_span("outer"), tracer.start_as_current_span("inner") as span:
            ids.append(span.get_span_context())
            raise RuntimeError("nobody caught me")

    thread = threading.Thread(target=fail, name="careless")
    thread.start()
    thread.join()
    line = last(lines)
    assert (line["level"], line["uncaught"], line["thread_name"]) == ("FATAL", "thread", "careless")
    assert line["exception.message"] == "nobody caught me"
    assert (line["trace_id"], line["span_id"]) == (f"{ids[0].trace_id:032x}", f"{ids[0].span_id:016x}")


def test_an_error_that_falls_through_two_nets_is_logged_once(lines: io.StringIO) -> None:
    error = RuntimeError("nobody caught me")
    logs.uncaught(error, "loop", "a loop failed")
    sys.excepthook(RuntimeError, error, None)
    assert [json.loads(line)["message"] for line in lines.getvalue().splitlines()] == ["a loop failed"]


def test_an_error_in_a_destructor_is_logged(lines: io.StringIO) -> None:
    class Careless:
        def __del__(self) -> None:
            raise RuntimeError("nobody caught me")

    Careless()
    line = last(lines)
    assert (line["level"], line["uncaught"], line["exception.message"]) == ("ERROR", "destructor", "nobody caught me")
    assert "__del__" in str(line["ignored_in"])


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_errors_that_nobody_asks_a_task_for_are_logged_under_the_span_that_made_it(
    lines: io.StringIO, tracer: Tracer, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    ids = []

    async def fail() -> None:
        raise RuntimeError("nobody asked")

    async def careless() -> None:
        logs.watch(asyncio.get_running_loop())
        with tracer.start_as_current_span("request") as span:
            ids.append(span.get_span_context())
            task = asyncio.get_running_loop().create_task(fail())
        await asyncio.wait([task])
        del task
        gc.collect()
        asyncio.get_running_loop().call_soon(lambda: 1 / 0)
        await asyncio.sleep(0)

    with contextlib.closing(new_loop()) as loop:
        loop.run_until_complete(careless())
    task, callback = (json.loads(line) for line in lines.getvalue().splitlines())
    assert (task["level"], task["uncaught"], task["exception.message"]) == ("ERROR", "asyncio", "nobody asked")
    assert task["trace_id"] == f"{ids[0].trace_id:032x}"
    assert (callback["uncaught"], callback["exception.type"]) == ("asyncio", "ZeroDivisionError")
