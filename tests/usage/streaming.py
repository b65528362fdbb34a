"""A stream of events that tests hold in their hands."""

import queue
from typing import Any

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from meterscope.usage.v1 import event_service_pb2 as pb
from meterscope.usage.v1 import event_service_pb2_grpc


class EventStream:
    """One call of StreamEvents, whose requests are sent one by one."""

    def __init__(self, channel: grpc.Channel, *, timeout: float = 60) -> None:
        self._requests: queue.SimpleQueue[pb.StreamEventsRequest | None] = queue.SimpleQueue()
        stub = event_service_pb2_grpc.EventServiceStub(channel)
        self.call: Any = stub.StreamEvents(iter(self._requests.get, None), timeout=timeout)

    def send(self, *events: pb.Event, request_id: str = "", traceparent: str = "") -> None:
        self._requests.put(pb.StreamEventsRequest(events=events, request_id=request_id, traceparent=traceparent))

    def answer(self) -> pb.StreamEventsResponse:
        """Wait for the next answer."""
        answer: pb.StreamEventsResponse = next(self.call)
        return answer

    def ask(self, *events: pb.Event) -> pb.StreamEventsResponse:
        """Send a batch and wait for its answer; no other one is under way."""
        self.send(*events)
        return self.answer()

    def half_close(self) -> None:
        """Send no more."""
        self._requests.put(None)

    def end(self) -> list[pb.StreamEventsResponse]:
        """Send no more, and return the answers that are left."""
        self.half_close()
        return list(self.call)


def outcomes(answer: pb.StreamEventsResponse) -> list[str]:
    return [pb.Outcome.Name(result.outcome).removeprefix("OUTCOME_") for result in answer.results]


def told(error: grpc.RpcError) -> tuple[str, dict[str, str], float]:
    """The reason, the metadata and the retry delay in seconds of an error; 0 without one."""
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    for detail in status.details if status else ():
        detail.Unpack(info)
        detail.Unpack(retry)
    return info.reason, dict(info.metadata), retry.retry_delay.ToMilliseconds() / 1000
