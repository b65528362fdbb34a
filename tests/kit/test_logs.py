import io
import json
import logging
import logging.handlers
import sys
from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import TracerProvider

from services.kit import logs, telemetry
from services.kit.redaction import is_card_number, redact

# 4242 4242 4242 4242 is a published test number that passes the Luhn check; with …4241 it does not.
CARD = "4242 4242 4242 4242"


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    out = io.StringIO()
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    hooks = sys.excepthook
    monkeypatch.setattr(sys, "stdout", out)
    logs.setup("INFO", {"service": "usage", "version": "1.2.3", "environment": "test"})
    yield out
    root.handlers, sys.excepthook = before, hooks
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


def test_numbers_that_are_no_cards_stay() -> None:
    assert is_card_number("4242424242424242")
    assert not is_card_number("4242424242424241")
    assert redact("trace 4242424242424241") == "trace 4242424242424241"
    assert redact("sum 3480555124 bytes") == "sum 3480555124 bytes"
