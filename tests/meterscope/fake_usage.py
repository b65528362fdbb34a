"""A tiny real gRPC server in usage's place: it stores events by identity, as usage does, and fails on request."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from meterscope.usage.v1 import event_service_pb2 as pb
from meterscope.usage.v1 import event_service_pb2_grpc, meter_service_pb2_grpc
from meterscope.usage.v1 import meter_service_pb2 as meter_pb

OUTCOME_COUNTS = {
    pb.OUTCOME_ACCEPTED: "accepted",
    pb.OUTCOME_DUPLICATE: "duplicate",
    pb.OUTCOME_REJECTED: "rejected",
}


@dataclass
class Failure:
    """What happens to one call (nothing if OK): the status, whether the events were stored before it, the delay that is asked for."""

    code: grpc.StatusCode
    stored: bool = False
    retry_after: float = 0.0


@dataclass
class FakeUsage(event_service_pb2_grpc.EventServiceServicer, meter_service_pb2_grpc.MeterServiceServicer):
    """Answers calls; the first ones fail as `failures` says."""

    failures: list[Failure] = field(default_factory=list)
    calls: list[pb.IngestEventsRequest] = field(default_factory=list)
    metadata: list[dict[str, str]] = field(default_factory=list)
    stored: dict[tuple[str, str, str], pb.Event] = field(default_factory=dict)
    meters: list[meter_pb.Meter] = field(default_factory=list)
    streams: int = 0
    traceparents: list[str] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    arrived: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def IngestEvents(self, request: pb.IngestEventsRequest, context: grpc.ServicerContext) -> pb.IngestEventsResponse:
        self.calls.append(request)
        self.metadata.append({key: str(value) for key, value in context.invocation_metadata()})
        self.arrived.release()
        self.gate.wait(timeout=20)
        failure = self.failures.pop(0) if self.failures else None
        if failure and failure.code is grpc.StatusCode.OK:
            failure = None
        if failure and not failure.stored:
            self._fail(failure, context)
        response = pb.IngestEventsResponse()
        for index, event in enumerate(request.events):
            outcome = self._judge(event)
            response.results.add(index=index, id=event.id, outcome=outcome, reason="X" if outcome > 1 else "")
            name = OUTCOME_COUNTS[outcome]
            setattr(response, name, getattr(response, name) + 1)
        if failure:
            self._fail(failure, context)
        return response

    def StreamEvents(
        self, request_iterator: Iterator[pb.StreamEventsRequest], context: grpc.ServicerContext
    ) -> Iterator[pb.StreamEventsResponse]:
        self.streams += 1
        for position, request in enumerate(request_iterator):
            self.traceparents.append(request.traceparent)
            batch = pb.IngestEventsRequest(events=request.events, request_id=request.request_id)
            answer = self.IngestEvents(batch, context)
            yield pb.StreamEventsResponse(
                results=answer.results, accepted=answer.accepted, request_id=request.request_id, position=position
            )

    def CreateMeter(self, request: meter_pb.CreateMeterRequest, _context: grpc.ServicerContext) -> meter_pb.Meter:
        self.meters.append(request.meter)
        return request.meter

    def _judge(self, event: pb.Event) -> pb.Outcome.ValueType:
        if event.type == "bad":
            return pb.OUTCOME_REJECTED
        identity = (event.customer_key, event.source, event.id)
        if identity in self.stored:
            return pb.OUTCOME_DUPLICATE
        self.stored[identity] = event
        return pb.OUTCOME_ACCEPTED

    def _fail(self, failure: Failure, context: grpc.ServicerContext) -> None:
        detail = AnyMessage()
        retry = error_details_pb2.RetryInfo(retry_delay=Duration(nanos=int(failure.retry_after * 1e9)))
        detail.Pack(retry)
        status = status_pb2.Status(
            code=failure.code.value[0], message="made to fail", details=[detail] if failure.retry_after else []
        )
        context.abort_with_status(rpc_status.to_status(status))


@dataclass
class RunningUsage:
    """The server with its address."""

    servicer: FakeUsage
    address: str
    server: grpc.Server


def check_streamed_spans(spans: InMemorySpanExporter, usage: RunningUsage, *, accepted: list[int]) -> None:
    """Check that each batch of a stream was a span with so many accepted events, and that the server was told of it."""
    mine = [span for span in spans.get_finished_spans() if span.name.endswith("EventService/StreamEvents")]
    assert [(span.attributes or {})["meterscope.batch.accepted"] for span in mine] == accepted
    contexts = [span.context for span in mine if span.context]
    told = [f"00-{context.trace_id:032x}-{context.span_id:016x}" for context in contexts]
    # What follows are flags.
    assert [each[:-3] for each in usage.servicer.traceparents] == told
