"""One customer's usage on the real stack: its metric and its log line; what the collector keeps, and what it redacts."""

import logging
import secrets
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from eventually import eventually
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.logging.handler import LoggingHandler
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import StatusCode, Tracer, format_trace_id

from meterscope.usage.v1.event_service_pb2 import IngestEventsRequest
from meterscope.usage.v1.meter_service_pb2 import AGGREGATION_COUNT, CreateMeterRequest, Meter
from tests.e2e.running import Running
from tests.stack.conftest import RealStack
from tests.usage.usage_harness import TYPE, Client, event

pytestmark = pytest.mark.stack

INGEST = "meterscope.usage.v1.EventService/IngestEvents"


@dataclass(frozen=True)
class Crossing:
    """A customer that sent two requests and so reached its limit of two, and the trace of making its meter before."""

    customer: str
    trace_id: str
    unkept_trace_id: str


@pytest.fixture(scope="module")
def crossing(stack: RealStack, up: Running) -> Crossing:
    with up.channel("usage") as channel:
        client = Client.on(channel)
        unkept_trace_id = secrets.token_hex(16)
        meter = Meter(id="requests", event_type=TYPE, aggregation=AGGREGATION_COUNT)
        client.meters.CreateMeter(CreateMeterRequest(meter=meter), metadata=[traceparent(unkept_trace_id)])
        customer = client.put_customer(limits={"requests": "2"}, thresholds=[100])
        trace_id = secrets.token_hex(16)
        request = IngestEventsRequest(events=[event(customer), event(customer)])
        client.events.IngestEvents(request, timeout=30, metadata=[traceparent(trace_id)])
    eventually(lambda: stack.trace(trace_id), seconds=60)
    return Crossing(customer, trace_id, unkept_trace_id)


def traceparent(trace_id: str) -> tuple[str, str]:
    """The header of a caller in this trace."""
    return "traceparent", f"00-{trace_id}-{secrets.token_hex(8)}-01"


@pytest.fixture(scope="module")
def tracer(stack: RealStack) -> Iterator[Tracer]:
    """A tracer of the test's own whose spans go to the collector at once."""
    provider = TracerProvider(resource=Resource.create({"service.name": "test-sender"}))
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(endpoint=stack.endpoint, insecure=True)))
    yield provider.get_tracer("tests")
    provider.shutdown()


def test_usage_is_in_prometheus_by_customer_and_by_tenant(stack: RealStack, crossing: Crossing) -> None:
    query = f'billing_usage_increment_total{{customer_id="{crossing.customer}"}}'

    def counted() -> bool:
        # Two events of a counting meter.
        return [sample["value"][1] for sample in stack.samples(query)] == ["2"]

    eventually(counted, seconds=90)
    (sample,) = stack.samples(query)
    labels = sample["metric"]
    assert labels["__name__"] == "billing_usage_increment_total"
    assert (labels["tenant_id"], labels["metric_type"]) == (crossing.customer, "requests")
    assert labels["job"] == "meterscope/usage-worker"


def test_a_log_line_is_in_loki_by_its_trace(stack: RealStack, crossing: Crossing) -> None:
    query = f'{{service_name="alerts-worker"}} |= "alert: " | trace_id="{crossing.trace_id}"'
    ((labels, _),) = eventually(lambda: stack.lines(query), seconds=60)
    assert labels["customer_id"] == crossing.customer
    eventually(lambda: labels["span_id"] in stack.trace(crossing.trace_id), seconds=60)


def test_spans_are_counted_before_they_are_sampled(stack: RealStack, crossing: Crossing) -> None:
    calls = 'sum(traces_span_metrics_calls_total{service_name="usage", span_name="%s"})'
    graph = 'traces_service_graph_request_total{client="usage-worker", server="alerts"}'
    eventually(lambda: stack.samples(calls % INGEST), seconds=60)
    eventually(lambda: stack.samples(graph), seconds=60)
    # Asked for by the test itself, never kept: nothing fails, is slow or moves money there.
    eventually(lambda: stack.samples(calls % "meterscope.usage.v1.MeterService/CreateMeter"), seconds=60)
    assert stack.trace(crossing.unkept_trace_id) == {}


def test_errors_and_kept_traces_stay_and_the_rest_goes(stack: RealStack, tracer: Tracer) -> None:
    with tracer.start_as_current_span("plain") as plain:
        pass
    with (
        tracer.start_as_current_span("kept", attributes={"meterscope.keep": True}) as kept,
        tracer.start_as_current_span("below the kept one"),
    ):
        pass
    with tracer.start_as_current_span("failed") as failed:
        failed.set_status(StatusCode.ERROR)
    ids = [format_trace_id(span.get_span_context().trace_id) for span in (plain, kept, failed)]
    # Decided in the order in which they came: when the last is there, the first has been decided too.
    eventually(lambda: stack.trace(ids[2]), seconds=60)
    eventually(lambda: len(stack.trace(ids[1])) == 2, seconds=60)
    assert stack.trace(ids[0]) == {}


def test_secrets_of_spans_do_not_pass_the_collector(stack: RealStack, tracer: Tracer) -> None:
    secrets = {
        "card": "paid with 4111 1111 1111 1111 today",
        "mail": "ask jane.doe@example.com",
        "key": "sk_test_4eC39HqLyjWDarjtT1zdp7dc",
        "header": "Bearer abcdefghijklmnop",
        "url": "postgresql://usage:hunter2@db/usage",
        "db.password": "hunter2",
        "phrase": 'password: "hunter 2" given',
        "pwd": "hunter2",
        "pair": "user=meter pwd=hunter2",
        "dsn": "dsn=https://f00ba4@errors.example/1 was set",
        "cookies": "Cookie: session=f00ba4; csrf=ba4f00",
    }
    others = {"number": 4111111111111111, "list": ["a", "jane.doe@example.com"], "count": 42, "plain": "inv_42"}
    # 15 digits that pass the Luhn check: a device's.
    others["imei"] = "354264530512544"
    name = f"secrets {uuid.uuid4()}"
    with tracer.start_as_current_span(name, attributes={**secrets, **others, "meterscope.keep": True}) as span:
        trace_id = format_trace_id(span.get_span_context().trace_id)
    (found,) = eventually(lambda: stack.trace(trace_id), seconds=60).values()
    tags = {tag["key"]: tag["value"] for tag in found["tags"]}
    assert (tags["plain"], tags["count"]) == ("inv_42", 42)
    assert tags["number"] == "****"
    assert "jane" not in str(tags["list"])
    assert tags["card"] == "paid with **** today"
    assert tags["mail"] == "ask ****"
    assert (tags["key"], tags["header"], tags["db.password"]) == ("****", "****", "****")
    assert tags["url"] == "postgresql****db/usage"
    assert tags["phrase"] == "**** given"
    assert (tags["pwd"], tags["pair"], tags["dsn"], tags["cookies"]) == ("****", "user=meter ****", "****", "****")
    assert tags["imei"] == others["imei"]


def test_secrets_in_names_and_statuses_of_spans_do_not_pass_the_collector(stack: RealStack, tracer: Tracer) -> None:
    with tracer.start_as_current_span("GET /jane.doe@example.com", attributes={"meterscope.keep": True}) as span:
        span.add_event("paid with 4111111111111111", {"n": 1})
        span.set_status(StatusCode.ERROR, "postgresql://usage:hunter2@db/usage is away")
        with tracer.start_as_current_span("plain", attributes={"meterscope.keep": True}) as plain:
            plain.add_event("retried")
        trace_id = format_trace_id(span.get_span_context().trace_id)
    eventually(lambda: len(stack.trace(trace_id)) == 2, seconds=60)
    by_name = {found["operationName"]: found for found in stack.trace(trace_id).values()}
    assert set(by_name) == {"GET /****", "plain"}
    tags = {name: {tag["key"]: tag["value"] for tag in found["tags"]} for name, found in by_name.items()}
    assert tags["GET /****"]["otel.status_description"] == "postgresql****db/usage is away"
    assert "otel.status_description" not in tags["plain"]
    # Nothing of the way through the processors is left.
    assert not [key for found in tags.values() for key in found if key.startswith("redaction")]
    fields = {
        name: {field["key"]: field["value"] for log in found["logs"] for field in log["fields"]}
        for name, found in by_name.items()
    }
    assert fields == {"GET /****": {"event": "paid with ****", "n": 1}, "plain": {"event": "retried"}}


def test_secrets_of_log_lines_do_not_pass_the_collector(stack: RealStack) -> None:
    sender = f"test-logger-{uuid.uuid4()}"
    provider = LoggerProvider(Resource.create({"service.name": sender}), shutdown_on_exit=False)
    provider.add_log_record_processor(SimpleLogRecordProcessor(OTLPLogExporter(endpoint=stack.endpoint, insecure=True)))
    log = logging.getLogger(sender)
    log.addHandler(LoggingHandler(logger_provider=provider))
    log.warning("jane.doe@example.com paid with 4111111111111111", extra={"api_key": "hunter2", "invoice_id": "inv_42"})
    provider.shutdown()
    ((labels, line),) = eventually(lambda: stack.lines(f'{{service_name="{sender}"}}'), seconds=60)
    assert line == "**** paid with ****"
    assert (labels["api_key"], labels["invoice_id"]) == ("****", "inv_42")
