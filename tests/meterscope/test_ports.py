"""Holding ports before anything is started."""

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from meterscope.supervisor.errors import SupervisorError
from meterscope.supervisor.ports import Reservations, listener, ports
from tests.ports import free_ports


@pytest.fixture
def port() -> int:
    return free_ports(2)


@pytest.fixture
def server() -> Iterator[grpc.Server]:
    server = grpc.server(ThreadPoolExecutor(1))
    yield server
    server.stop(None).wait()


def test_all_ports_follow_from_the_gateways() -> None:
    assert ports(9000) == {
        "gateway": 9000,
        "usage": 9001,
        "billing": 9002,
        "payments": 9003,
        "alerts": 9004,
        "postgres": 9005,
        "valkey": 9006,
        "usage-worker": 9011,
        "billing-worker": 9012,
        "payments-worker": 9013,
        "alerts-worker": 9014,
    }


def test_a_held_port_is_refused_to_a_second_holder(port: int) -> None:
    with Reservations({"usage": port}), pytest.raises(SupervisorError, match=rf"port {port} \(usage\) is in use"):
        Reservations({"usage": port})


def test_a_port_that_a_grpc_server_shares_is_refused_and_its_owner_named(port: int, server: grpc.Server) -> None:
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    owner = listener(port)
    assert owner is not None
    with pytest.raises(SupervisorError, match=rf"port {port} \(usage\) is in use: process {owner.pid} "):
        Reservations({"usage": port})


def test_a_child_listens_on_a_held_port_and_gets_every_connection(port: int, server: grpc.Server) -> None:
    with Reservations({"usage": port}):
        assert server.add_insecure_port(f"127.0.0.1:{port}") == port
        server.start()
        for _ in range(20):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()


def test_a_plain_server_of_somebody_else_cannot_take_a_held_port(port: int) -> None:
    with Reservations({"gateway": port}), socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with pytest.raises(OSError, match="Address already in use"):
            other.bind(("127.0.0.1", port))


def test_all_ports_are_named_that_cannot_be_had_and_none_stays_held(port: int) -> None:
    with Reservations({"usage": port}):
        with pytest.raises(SupervisorError, match="--port") as refused:
            Reservations({"gateway": port + 1, "usage": port, "billing": port})
        assert "(usage)" in str(refused.value)
        assert "(billing)" in str(refused.value)
        Reservations({"gateway": port + 1}).close()
