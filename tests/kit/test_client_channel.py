"""The channel to other services: calls that are sent again are the same request, and all kinds of calls say who calls."""

import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import grpc
import pytest
from eventually import eventually
from opentelemetry import trace
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from meterscope.billing.v1 import bill_run_service_pb2, bill_run_service_pb2_grpc, customer_service_pb2_grpc
from meterscope.billing.v1 import customer_service_pb2 as pb
from services.kit.channel import open_channel
from services.kit.config import KitSettings
from services.kit.settings import read


@dataclass
class Billing(customer_service_pb2_grpc.CustomerServiceServicer, bill_run_service_pb2_grpc.BillRunServiceServicer):
    """Acts on a request, and loses the first `lost` answers."""

    lost: int = 0
    seen: list[str] = field(default_factory=list)

    def CreateCustomer(self, request: pb.CreateCustomerRequest, context: grpc.ServicerContext) -> pb.Customer:
        self.seen.append(request.request_id)
        if self.lost:
            self.lost -= 1
            context.abort(grpc.StatusCode.UNAVAILABLE, "the answer is lost")
        return pb.Customer(id="cus_1")

    def StartBillRun(
        self, request: bill_run_service_pb2.StartBillRunRequest, context: grpc.ServicerContext
    ) -> bill_run_service_pb2.BillRun:
        self.seen.append(request.request_id)
        return bill_run_service_pb2.BillRun()


@pytest.fixture
def billing() -> Billing:
    return Billing()  # type: ignore[abstract] # the other methods answer UNIMPLEMENTED


@pytest.fixture
def channel(billing: Billing) -> Iterator[grpc.Channel]:
    server = grpc.server(ThreadPoolExecutor(2))
    customer_service_pb2_grpc.add_CustomerServiceServicer_to_server(billing, server)
    bill_run_service_pb2_grpc.add_BillRunServiceServicer_to_server(billing, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with open_channel(f"127.0.0.1:{port}", read(KitSettings, {})) as channel:
        yield channel
    server.stop(None).wait()


def test_a_retry_carries_the_same_request_id_and_a_new_call_another(billing: Billing, channel: grpc.Channel) -> None:
    billing.lost = 2
    stub = customer_service_pb2_grpc.CustomerServiceStub(channel)
    request = pb.CreateCustomerRequest()
    stub.CreateCustomer(request)
    stub.CreateCustomer(request)
    first, second, third, other = billing.seen
    assert first == second == third != other
    assert first
    assert request == pb.CreateCustomerRequest()


def test_a_request_id_that_was_chosen_stays(billing: Billing, channel: grpc.Channel) -> None:
    customer_service_pb2_grpc.CustomerServiceStub(channel).CreateCustomer(pb.CreateCustomerRequest(request_id="mine"))
    assert billing.seen == ["mine"]


def test_a_request_id_that_the_contract_demands_is_not_made_up(billing: Billing, channel: grpc.Channel) -> None:
    stub = bill_run_service_pb2_grpc.BillRunServiceStub(channel)
    stub.StartBillRun(bill_run_service_pb2.StartBillRunRequest())
    assert billing.seen == [""]


@dataclass
class Echo:
    """Answers calls of all four kinds, and keeps what came with each."""

    metadata: dict[str, dict[str, str]] = field(default_factory=dict)
    remaining: dict[str, float] = field(default_factory=dict)

    def register(self, server: grpc.Server) -> None:
        handlers = {
            "One": grpc.unary_unary_rpc_method_handler(self._heard("One", lambda request: request)),
            "Told": grpc.unary_stream_rpc_method_handler(self._heard("Told", lambda request: iter([request] * 2))),
            "Asked": grpc.stream_unary_rpc_method_handler(self._heard("Asked", b"".join)),
            "Both": grpc.stream_stream_rpc_method_handler(self._heard("Both", lambda requests: requests)),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", handlers),))

    def _heard(self, kind: str, answer: Callable[[Any], Any]) -> Callable[[Any, grpc.ServicerContext], Any]:
        def handle(request: Any, context: grpc.ServicerContext) -> Any:
            self.metadata[kind] = {key: str(value) for key, value in context.invocation_metadata()}
            self.remaining[kind] = context.time_remaining()
            return answer(request)

        return handle


def test_calls_of_all_kinds_carry_the_token_the_trace_and_the_request_id(spans: InMemorySpanExporter) -> None:
    echo = Echo()
    server = grpc.server(ThreadPoolExecutor(4))
    echo.register(server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    settings = replace(read(KitSettings, {}), service_token="secret")
    with (
        open_channel(f"127.0.0.1:{port}", settings) as channel,
        trace.get_tracer("test").start_as_current_span("caller") as caller,
    ):
        assert channel.unary_unary("/test.Echo/One")(b"a") == b"a"
        assert list(channel.unary_stream("/test.Echo/Told")(b"a")) == [b"a", b"a"]
        assert channel.stream_unary("/test.Echo/Asked")(iter([b"a", b"b"])) == b"ab"
        assert list(channel.stream_stream("/test.Echo/Both")(iter([b"a", b"b"]))) == [b"a", b"b"]
        trace_id = f"{caller.get_span_context().trace_id:032x}"
        # The end of a call is told by a thread of grpcio's.
        made = eventually(
            lambda: {s.name: s for s in spans.get_finished_spans()} if len(spans.get_finished_spans()) == 4 else None
        )
    server.stop(None).wait()
    kinds = {"One", "Told", "Asked", "Both"}
    assert echo.metadata.keys() == kinds
    for kind, metadata in echo.metadata.items():
        assert metadata["authorization"] == "Bearer secret"
        assert metadata["x-request-id"]
        assert metadata["traceparent"].split("-")[1] == trace_id
        span = made[f"test.Echo/{kind}"]
        assert span.context is not None
        assert metadata["traceparent"].split("-")[2] == f"{span.context.span_id:016x}"
        assert (span.attributes or {})["rpc.response.status_code"] == "OK"
    # A stream takes as long as it does: its deadline is at the end of time.
    assert {kind for kind in kinds if echo.remaining[kind] <= 10} == {"One"}


def test_a_stream_that_fails_says_so_to_its_caller_and_in_its_span(spans: InMemorySpanExporter) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with open_channel(f"127.0.0.1:{taken.getsockname()[1]}", read(KitSettings, {})) as channel:
            answers = channel.stream_stream("/test.Echo/Both")(iter([b"a"]), timeout=10)
            with pytest.raises(grpc.RpcError) as failed:
                next(answers)
    assert failed.value.code() is grpc.StatusCode.UNAVAILABLE
    (span,) = eventually(spans.get_finished_spans)
    assert (span.attributes or {})["rpc.response.status_code"] == "UNAVAILABLE"
