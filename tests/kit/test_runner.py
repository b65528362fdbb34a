"""Traces through the outbox row: whoever put a job and what the job does are one trace."""

from collections.abc import Callable
from datetime import timedelta

import pytest
import sqlalchemy as sa
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from services.kit import logs, telemetry
from services.kit.outbox import Job, Jobs, JobSpec
from services.kit.runner import backoff
from services.kit.worker import Worker
from tests.eventually import eventually
from tests.kit.conftest import Store

Work = Callable[..., Worker]


def put_within_a_trace(store: Store) -> tuple[str, trace.SpanContext]:
    with telemetry.customer("cus_1"), trace.get_tracer("test").start_as_current_span("CreatePayment") as span:
        return store.put(aggregate="cus_1"), span.get_span_context()


def by_kind(spans: InMemorySpanExporter, kind: SpanKind) -> list[ReadableSpan]:
    return [span for span in spans.get_finished_spans() if span.kind is kind]


def run(store: Store, work: Work, row_id: str) -> tuple[str, str, object]:
    """Run the row; return the trace id, the request id and the customer that the job sees."""
    seen: list[tuple[str, str, object]] = []

    def look(_job: Job) -> None:
        carried = telemetry.inject()
        seen.append((telemetry.current_trace_id(), logs.request_id.get(), carried.get("baggage")))

    jobs = Jobs()
    jobs.register("work", look)
    work(jobs)
    eventually(lambda: store.state(row_id) == "DONE" and seen)
    return seen[0]


def test_a_job_continues_the_trace_that_put_it(store: Store, work: Work, spans: InMemorySpanExporter) -> None:
    row_id, origin = put_within_a_trace(store)
    trace_id, request_id, baggage = run(store, work, row_id)
    assert trace_id == trace.format_trace_id(origin.trace_id)
    assert (request_id, baggage) == (row_id, "customer_id=cus_1")
    (consumer,) = eventually(lambda: [s for s in by_kind(spans, SpanKind.CONSUMER) if s.name == "process work"])
    (producer,) = [s for s in by_kind(spans, SpanKind.PRODUCER) if s.name == "send work"]
    assert producer.parent is not None
    assert consumer.parent is not None
    assert (producer.parent.span_id, consumer.parent.span_id) == (origin.span_id, producer.context.span_id)
    attributes = dict(consumer.attributes or {})
    assert attributes["messaging.message.id"] == row_id
    assert attributes["meterscope.job.status"] == "success"


def test_a_job_queued_more_than_a_minute_ago_begins_a_new_trace_with_a_link(
    store: Store, work: Work, spans: InMemorySpanExporter
) -> None:
    row_id, origin = put_within_a_trace(store)
    store.change(row_id, created_at=sa.func.now() - timedelta(seconds=61))
    trace_id, _, baggage = run(store, work, row_id)
    assert trace_id != trace.format_trace_id(origin.trace_id)
    assert baggage == "customer_id=cus_1"
    (consumer,) = eventually(lambda: [s for s in by_kind(spans, SpanKind.CONSUMER) if s.name == "process work"])
    assert consumer.parent is None
    assert [link.context.trace_id for link in consumer.links] == [origin.trace_id]


@pytest.mark.parametrize(
    ("attempt", "seconds"),
    # Doubled from 1 s, at most 300 s, a quarter more or less.
    [(1, 1), (2, 2), (3, 4), (9, 256), (10, 300), (1000, 300)],
)
def test_the_wait_after_a_failure_doubles_up_to_its_bound(attempt: int, seconds: int) -> None:
    spec = JobSpec("work", lambda _job: None, timedelta(seconds=60), 20, (timedelta(seconds=1), timedelta(minutes=5)))
    wait = backoff(spec, attempt).total_seconds()
    assert 0.75 * seconds <= wait <= 1.25 * seconds
