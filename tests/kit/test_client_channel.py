"""Calls that are sent again: each try is the same request."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import grpc
import pytest

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
