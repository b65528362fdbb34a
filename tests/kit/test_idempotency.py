"""Requests that act once."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from meterscope.billing.v1 import customer_service_pb2 as pb
from services.kit.errors import InvalidArgument
from services.kit.idempotency import RequestIdReused, once
from tests.kit.conftest import Store

Create = Callable[..., pb.Customer]


@pytest.fixture
def create(store: Store) -> Create:
    """Create a customer whose id counts the effects so far."""

    def call(name: str, request_id: str, *, method: str = "CreateCustomer", fail: bool = False) -> pb.Customer:
        with store.database.transaction() as conn:

            def act() -> pb.Customer:
                store.effect(conn, name)
                if fail:
                    raise ZeroDivisionError
                return pb.Customer(id=f"cus_{len(store.effects())}", display_name=name)

            request = pb.CreateCustomerRequest(customer=pb.Customer(display_name=name), request_id=request_id)
            return once(
                conn,
                method=method,
                request_id=request_id,
                request=request,
                response_type=pb.Customer,
                act=act,
            )

    return call


def test_a_repeat_gets_the_first_answer_and_acts_no_more(store: Store, create: Create) -> None:
    first = create("Asha", "r1")
    assert create("Asha", "r1") == first
    assert store.effects() == ["Asha"]


def test_another_request_under_the_same_id_is_refused(store: Store, create: Create) -> None:
    create("Asha", "r1")
    with pytest.raises(RequestIdReused, match="'r1' was used for another CreateCustomer request") as caught:
        create("Bela", "r1")
    assert caught.value.metadata == {"request_id": "r1", "method": "CreateCustomer"}
    assert (caught.value.status, caught.value.reason) == ("ALREADY_EXISTS", "REQUEST_ID_REUSED")
    assert store.effects() == ["Asha"]


def test_ids_of_different_methods_do_not_meet(store: Store, create: Create) -> None:
    create("Asha", "r1")
    create("Bela", "r1", method="UpdateCustomer")
    assert store.effects() == ["Asha", "Bela"]


def test_without_an_id_each_call_acts(store: Store, create: Create) -> None:
    create("Asha", "")
    create("Asha", "")
    assert store.effects() == ["Asha", "Asha"]


def test_an_error_leaves_the_id_free(store: Store, create: Create) -> None:
    with pytest.raises(ZeroDivisionError):
        create("Asha", "r1", fail=True)
    create("Bela", "r1")
    assert store.effects() == ["Bela"]


def test_repeats_at_the_same_time_act_once(store: Store, create: Create) -> None:
    together = threading.Barrier(4)

    def call(_number: int) -> pb.Customer:
        together.wait(20)
        return create("Asha", "r1")

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(call, range(4)))
    assert store.effects() == ["Asha"]
    assert all(answer == answers[0] for answer in answers)


@pytest.mark.parametrize("request_id", ["x" * 257, "a\0b"])
def test_an_id_that_cannot_be_kept_is_refused(create: Create, request_id: str) -> None:
    with pytest.raises(InvalidArgument, match="request_id: at most 256 bytes, without NUL"):
        create("Asha", request_id)
