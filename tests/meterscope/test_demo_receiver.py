"""The demo's webhook receiver, called as alerts calls it."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind
from standardwebhooks import Webhook

from meterscope.demo.receiver import Receiver

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
TRACE = "0af7651916cd43dd8448eb211c80319c"
BODY = json.dumps({"type": "alert.firing", "data": {"id": "alr_1"}})


@pytest.fixture
def spans() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def receiver(tmp_path: Path, spans: InMemorySpanExporter) -> Iterator[Receiver]:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    tracer = provider.get_tracer("test")
    with Receiver(port=0, secret=SECRET, data_dir=tmp_path, tracer=tracer) as running:
        yield running


def send(receiver: Receiver, *, at: datetime | None = None, body: str = BODY, sent: str = BODY) -> int:
    at = at or datetime.now(UTC)
    headers = {
        "webhook-id": "ntf_1",
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(SECRET).sign("ntf_1", at, body),
        "traceparent": f"00-{TRACE}-b7ad6b7169203331-01",
    }
    return httpx.post(receiver.url, content=sent, headers=headers).status_code


def test_a_signed_webhook_is_kept_once_and_continues_its_trace(receiver: Receiver, spans: InMemorySpanExporter) -> None:
    assert [send(receiver), send(receiver)] == [204, 204]
    (webhook,) = receiver.received()
    assert (webhook.id, webhook.payload["data"]) == ("ntf_1", {"id": "alr_1"})
    span = spans.get_finished_spans()[0]
    assert (f"{span.context.trace_id:032x}", span.kind) == (TRACE, SpanKind.SERVER)
    assert receiver.refused == 0


def test_a_webhook_with_a_changed_body_or_an_old_time_is_refused(receiver: Receiver) -> None:
    assert send(receiver, sent=BODY.replace("alr_1", "alr_2")) == 401
    assert send(receiver, at=datetime.now(UTC) - timedelta(minutes=6)) == 401
    assert (receiver.received(), receiver.refused) == ([], 2)


def test_other_paths_are_not_there(receiver: Receiver) -> None:
    assert httpx.post(receiver.url + "x", content="{}").status_code == 404


def test_what_was_received_is_known_in_a_later_run(receiver: Receiver, tmp_path: Path) -> None:
    send(receiver)
    tracer = TracerProvider().get_tracer("test")
    with Receiver(port=0, secret=SECRET, data_dir=tmp_path, tracer=tracer) as later:
        assert send(later) == 204
        assert [webhook.id for webhook in later.received()] == ["ntf_1"]


def test_a_port_that_is_taken_is_an_error(receiver: Receiver, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="in use"):
        Receiver(port=receiver.port, secret=SECRET, data_dir=tmp_path, tracer=TracerProvider().get_tracer("test"))
