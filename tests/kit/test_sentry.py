"""Sentry, by the real SDK and its real transport, against a receiver on loopback."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.kit import sentry_program
from tests.kit.conftest import Store
from tests.sentry_receiver import Receiver, exception

SECRETS = [
    sentry_program.CARD,
    sentry_program.MAIL,
    sentry_program.METHOD,
    sentry_program.KEY,
    sentry_program.WORD,
    sentry_program.NICKNAME,
]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


def run(scenario: str, dsn: str | None, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a process that fails as the scenario says."""
    given = {**os.environ, "JAEGER_URL": "http://jaeger.example/", **environ, **({"SENTRY_DSN": dsn} if dsn else {})}
    return subprocess.run(
        [sys.executable, "-m", "tests.kit.sentry_program", scenario, *arguments],
        env=given,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def assert_scrubbed(receiver: Receiver) -> None:
    """No secret is in anything that came; the fields around them are."""
    text = json.dumps(receiver.items)
    assert not [secret for secret in SECRETS if secret in text]
    for event in receiver.of("event"):
        (frame,) = [frame for frame in exception(event)["stacktrace"]["frames"] if frame["function"] == "fail"]
        assert frame["vars"]["api_key"] == "[redacted]"
        assert "[redacted e-mail]" in frame["vars"]["text"]
        assert frame["vars"]["details"]["payment_method"] == "[redacted]"
        (crumb,) = [crumb for crumb in event["breadcrumbs"]["values"] if "about to fail" in crumb["message"]]
        assert crumb["message"] == "about to fail for [redacted e-mail]"
        assert crumb["data"]["authorization"] == "[redacted]"
        assert crumb["data"]["with"] == "[redacted payment method]"


def trace_of(event: dict[str, Any]) -> str:
    """The trace id of an event, the same in its three places."""
    (trace_id,) = {
        event["contexts"]["trace"]["trace_id"],
        event["tags"]["trace_id"],
        event["extra"]["trace_url"].removeprefix("http://jaeger.example/trace/"),
    }
    return str(trace_id)


def test_an_error_in_a_servicer_arrives_once_under_its_trace_with_its_call(receiver: Receiver) -> None:
    ended = run("serve", receiver.dsn, APP_VERSION="1.2.3")
    assert "answered INTERNAL" in ended.stdout
    (event,) = receiver.of("event")
    assert event == receiver.error("servicer")
    assert trace_of(event) == "c" * 32
    assert event["tags"] | {"service": "usage", "role": "server", "customer_id": "cus_1"} == event["tags"]
    assert event["user"] == {"id": "cus_1"}
    assert (event["level"], event["release"], event["environment"]) == ("error", "1.2.3", "development")
    assert_scrubbed(receiver)
    # The call itself, and what it was busy with.
    (transaction,) = receiver.of("transaction")
    assert transaction["transaction"] == "meterscope.usage.v1.EventService/GetEvent"
    trace = transaction["contexts"]["trace"]
    assert (trace["trace_id"], trace["parent_span_id"], trace["op"]) == ("c" * 32, "1" * 16, "server")
    assert trace["status"] == "internal_error"
    (profile,) = receiver.of("profile")
    assert "Events.GetEvent" in {frame["function"] for frame in profile["profile"]["frames"]}


def test_opentelemetry_keeps_the_propagation(receiver: Receiver) -> None:
    ended = run("serve", receiver.dsn)
    assert "propagates baggage traceparent tracestate" in ended.stdout


def test_an_error_in_a_thread_arrives_once_under_the_span_it_was_raised_in(receiver: Receiver) -> None:
    ended = run("thread", receiver.dsn)
    (event,) = receiver.of("event")
    assert event == receiver.error("thread")
    assert f"thread {trace_of(event)}" in ended.stdout
    assert event["extra"]["uncaught"] == "thread"
    assert_scrubbed(receiver)


def test_errors_in_the_gateway_arrive_once_under_the_requests_trace(receiver: Receiver) -> None:
    ended = run("request", receiver.dsn)
    assert [line for line in ended.stdout.splitlines() if line.startswith("answered")] == [
        "answered 500",
        "answered 200",
    ]
    assert len(receiver.of("event")) == 2
    for what in ("gateway", "task"):
        event = receiver.error(what)
        assert trace_of(event) == "d" * 32
        assert (event["tags"]["service"], event["tags"]["role"]) == ("gateway", "gateway")
    assert_scrubbed(receiver)
    assert [found["transaction"] for found in receiver.of("transaction")] == ["GET /broken", "GET /careless"]


def test_errors_in_a_worker_arrive_once_each(receiver: Receiver, store: Store) -> None:
    store.put()
    url = store.database.url.set(drivername="postgresql").render_as_string(hide_password=False)
    ended = run("work", receiver.dsn, url, store.database.schema, store.redis_url)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert len(receiver.of("event")) == 2
    job = receiver.error("job")
    (line,) = [json.loads(line) for line in ended.stdout.splitlines() if '"job dead"' in line]
    assert trace_of(job) == line["trace_id"]
    assert (job["tags"]["service"], job["tags"]["role"]) == ("usage-worker", "worker")
    assert receiver.error("loop")["extra"]["loop"] == "breaking"
    assert_scrubbed(receiver)
    assert [found["transaction"] for found in receiver.of("transaction")].count("process work") == 1


def test_an_error_that_ends_the_process_arrives_before_it_ends(receiver: Receiver) -> None:
    ended = run("crash", receiver.dsn)
    assert ended.returncode == 1
    (event,) = receiver.of("event")
    assert (event, event["level"]) == (receiver.error("interpreter"), "fatal")
    assert_scrubbed(receiver)


def test_a_receiver_that_does_not_answer_holds_up_no_call(receiver: Receiver) -> None:
    receiver.may_answer.clear()
    ended = run("serve", receiver.dsn, CALLS="30")
    # All calls were answered and the process has ended while the receiver still had not answered the first report.
    assert ended.stdout.count("answered INTERNAL") == 30
    assert receiver.requests >= 1
    assert not receiver.may_answer.is_set()


def test_a_receiver_that_asks_for_less_gets_less(receiver: Receiver) -> None:
    receiver.status, receiver.headers = 429, {"retry-after": "60"}
    ended = run("serve", receiver.dsn, CALLS="30")
    assert ended.stdout.count("answered INTERNAL") == 30
    # Each call makes an error and a transaction: 60, of which those are sent that were made before the first answer.
    assert 1 <= receiver.requests < 30


def test_a_receiver_that_is_away_holds_up_no_call() -> None:
    with Receiver() as gone:
        dsn = gone.dsn
    ended = run("serve", dsn, CALLS="5")
    assert ended.stdout.count("answered INTERNAL") == 5


def test_fewer_calls_are_timed_in_production(receiver: Receiver) -> None:
    assert "rates 0.1 0.1" in run("nothing", receiver.dsn, METERSCOPE_ENVIRONMENT="production").stdout
    assert "rates 1.0 1.0" in run("nothing", receiver.dsn, METERSCOPE_ENVIRONMENT="development").stdout


def test_without_a_dsn_nothing_is_sent_and_nothing_imported() -> None:
    assert "never imported" in run("nothing", None).stdout


def test_tests_send_nothing_to_another_machine(receiver: Receiver) -> None:
    elsewhere = "https://f00ba4key@errors.example/1"
    assert "never imported" in run("nothing", elsewhere, METERSCOPE_ENVIRONMENT="test").stdout
    assert "rates" in run("nothing", receiver.dsn, METERSCOPE_ENVIRONMENT="test").stdout


def test_what_is_no_dsn_is_refused_without_being_shown() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "gateway"],
        env={**os.environ, "SENTRY_DSN": "hunter2"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == os.EX_CONFIG
    assert "SENTRY_DSN is not a DSN such as https://KEY@HOST/PROJECT" in ended.stderr
    assert "hunter2" not in ended.stderr
