"""What is measured and told of calls: never their numbers. All calls are made up."""

from collections.abc import Iterator

import grpc
import pytest
from calling import HEADER, LONDON, MUMBAI_MOBILE, ROWS, Caller, points
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from services.kit.channel import open_channel
from services.usage.__main__ import build_server
from services.usage.settings import Settings


@pytest.fixture(scope="module")
def channel(migrated: Settings, metric_reader: InMemoryMetricReader) -> Iterator[grpc.Channel]:  # noqa: ARG001 - the server reports to it
    server = build_server(migrated)
    port = server.start()
    with open_channel(f"127.0.0.1:{port}", migrated.kit) as channel:
        yield channel
    server.stop()


def test_counts_by_status_type_and_country(caller: Caller, customer: str, metric_reader: InMemoryMetricReader) -> None:
    before = points(metric_reader, "billing.cdr.processed")
    caller.send(HEADER + ROWS, customer_id=customer)
    after = points(metric_reader, "billing.cdr.processed")
    moved = {labels: value - before.get(labels, 0) for labels, value in after.items()}
    assert {labels: value for labels, value in moved.items() if value} == {
        (("call_type", "outbound"), ("destination", "IN"), ("status", "success")): 2,
        (("call_type", "outbound"), ("destination", "US"), ("status", "success")): 1,
        (("call_type", "inbound"), ("destination", "internal"), ("status", "success")): 1,
        (("call_type", "unknown"), ("destination", "unknown"), ("status", "failed")): 3,
    }
    assert points(metric_reader, "billing.cdr.processing.duration")[(("status", "success"),)] > 0


def test_a_span_has_the_counts_and_nothing_has_the_numbers(
    caller: Caller,
    customer: str,
    spans: InMemorySpanExporter,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level("INFO"):
        caller.send(HEADER + ROWS, customer_id=customer)
    (span,) = [span for span in spans.get_finished_spans() if span.name == "read call records"]
    assert span.attributes is not None
    assert (span.attributes["meterscope.calls.accepted"], span.attributes["meterscope.calls.rejected"]) == (4, 3)
    (line,) = [record for record in caplog.records if record.message == "call records imported"]
    assert vars(line)["accepted"] == 4
    told = str([vars(record) for record in caplog.records]) + str(
        [span.to_json() for span in spans.get_finished_spans()]
    )
    assert MUMBAI_MOBILE[1:] not in told
    assert LONDON[1:] not in told
