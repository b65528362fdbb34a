"""Calls without a valid service token are counted by method, from 0 on."""

from dataclasses import replace

import grpc
import pytest
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from meterscope.usage.v1 import event_service_pb2 as pb
from meterscope.usage.v1 import event_service_pb2_grpc as rpc
from services.kit.config import KitSettings
from services.kit.server import Server
from services.kit.settings import read
from tests.kit.measured import points

NAME = "meterscope.usage.v1.EventService"


def refused(reader: InMemoryMetricReader) -> dict[str, int]:
    found = points(reader.get_metrics_data(), "billing.auth.failures", {})
    return {point.attributes["route"]: point.value for point in found}


def test_refused_tokens_are_counted_by_method(metric_reader: InMemoryMetricReader) -> None:
    server = Server(
        "127.0.0.1:0",
        lambda target: rpc.add_EventServiceServicer_to_server(rpc.EventServiceServicer(), target),
        service_names=[NAME],
        settings=replace(read(KitSettings, {}), service_token="right"),
    )
    port = server.start()
    before = refused(metric_reader)
    # Every method of the server is there before the first refusal.
    assert {f"{NAME}/GetEvent", f"{NAME}/IngestEvents"} <= set(before)
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = rpc.EventServiceStub(channel)
        for metadata in ((), (("authorization", "Bearer wrong"),)):
            with pytest.raises(grpc.RpcError) as caught:
                stub.GetEvent(pb.GetEventRequest(), metadata=metadata)
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        # Let in, and not there: no refusal of a token.
        with pytest.raises(grpc.RpcError) as caught:
            stub.GetEvent(pb.GetEventRequest(), metadata=(("authorization", "Bearer right"),))
        assert caught.value.code() is not grpc.StatusCode.UNAUTHENTICATED
    server.stop()
    after = refused(metric_reader)
    assert {route: after[route] - before.get(route, 0) for route in after if after[route] != before.get(route, 0)} == {
        f"{NAME}/GetEvent": 2
    }
