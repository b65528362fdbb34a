"""Customers, and what usage is told of them."""

import grpc
import pytest
from billing_harness import Client, reason, violations
from billing_peers import Peers
from eventually import eventually

from meterscope.billing.v1 import customer_service_pb2 as pb

pytestmark = pytest.mark.usefixtures("worker")


def test_a_customer_is_active_and_usage_knows_its_key(client: Client, peers: Peers) -> None:
    customer = client.customer(external_key="asha-1")
    assert customer.id.startswith("cus_")
    assert customer.state == pb.CUSTOMER_STATE_ACTIVE
    (told,) = eventually(lambda: peers.usage.told_of(customer.id))
    assert (list(told.customer_keys), told.revision, told.time_zone) == (["asha-1"], 1, "Asia/Kolkata")
    assert (told.has_plan, list(told.periods), list(told.limits)) == (False, [], [])
    assert told.request_id.startswith("obx_")


def test_a_customer_without_a_zone_lives_by_utc(client: Client) -> None:
    assert client.customer(time_zone="").time_zone == "UTC"


def test_customers_are_found_by_their_id_and_by_their_key(client: Client) -> None:
    customer = client.customer(external_key="found-by-key")
    assert client.customers.GetCustomer(pb.GetCustomerRequest(customer_id=customer.id)) == customer
    found = client.customers.ListCustomers(pb.ListCustomersRequest(external_key="found-by-key"))
    assert list(found.customers) == [customer]


def test_an_unknown_customer_is_not_found(client: Client) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        client.customers.GetCustomer(pb.GetCustomerRequest(customer_id="cus_nobody"))
    assert refused.value.code() == grpc.StatusCode.NOT_FOUND
    assert reason(refused.value) == "CUSTOMER_NOT_FOUND"


def test_pages_list_every_customer_once_in_the_order_of_creation(client: Client) -> None:
    made = [client.customer(f"page {number}").id for number in range(5)]
    seen: list[str] = []
    token = ""
    while True:
        page = client.customers.ListCustomers(pb.ListCustomersRequest(page_size=2, page_token=token))
        assert len(page.customers) <= 2
        seen += [customer.id for customer in page.customers]
        token = page.next_page_token
        if not token:
            break
    assert [customer_id for customer_id in seen if customer_id in made] == made
    assert len(seen) == len(set(seen))


def test_an_external_key_belongs_to_one_customer(client: Client) -> None:
    client.customer(external_key="taken")
    with pytest.raises(grpc.RpcError) as refused:
        client.customer("another", external_key="taken")
    assert refused.value.code() == grpc.StatusCode.ALREADY_EXISTS
    assert reason(refused.value) == "CUSTOMER_KEY_TAKEN"


def test_customers_without_a_key_do_not_meet(client: Client) -> None:
    assert client.customer().id != client.customer().id


def test_a_repeated_request_gets_the_first_customer(client: Client) -> None:
    request = pb.CreateCustomerRequest(
        customer=pb.Customer(display_name="Once", currency="EUR", external_key="once"), request_id="once-1"
    )
    assert client.customers.CreateCustomer(request) == client.customers.CreateCustomer(request)


def test_a_request_id_is_refused_for_another_customer(client: Client) -> None:
    request = pb.CreateCustomerRequest(customer=pb.Customer(display_name="A", currency="EUR"), request_id="reused-1")
    client.customers.CreateCustomer(request)
    request.customer.display_name = "B"
    with pytest.raises(grpc.RpcError) as refused:
        client.customers.CreateCustomer(request)
    assert reason(refused.value) == "REQUEST_ID_REUSED"


def test_every_wrong_field_is_named_at_once(client: Client) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        client.customer("", currency="XYZ", time_zone="Mars/Olympus", external_key="k" * 257)
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert set(violations(refused.value)) == {
        "customer.display_name",
        "customer.currency",
        "customer.time_zone",
        "customer.external_key",
    }


@pytest.mark.parametrize(
    "zone", ["+05:30", "../etc/passwd", "asia/kolkata", "Factory", "localtime", "posixrules", "IST\0"]
)
def test_only_names_of_the_time_zone_database_are_time_zones(client: Client, zone: str) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        client.customer(time_zone=zone)
    assert set(violations(refused.value)) == {"customer.time_zone"}


@pytest.mark.parametrize("currency", ["", "inr", "XAU", "RUPEE"])
def test_only_currencies_with_minor_units_are_billed(client: Client, currency: str) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        client.customer(currency=currency)
    assert set(violations(refused.value)) == {"customer.currency"}


def test_a_nul_in_a_name_is_refused(client: Client) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        client.customer("a\0b")
    assert set(violations(refused.value)) == {"customer.display_name"}


def test_an_id_with_a_nul_is_refused(client: Client) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        client.customers.GetCustomer(pb.GetCustomerRequest(customer_id="cus_\0"))
    assert set(violations(refused.value)) == {"customer_id"}
