"""What callers may ask of the payments service, and what they are told when they may not. No worker runs here."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import grpc
import pytest
from google.rpc import error_details_pb2
from google.type import money_pb2
from grpc_status import rpc_status
from payments_harness import Client

from meterscope.payments.v1 import payment_method_service_pb2 as methods_pb
from meterscope.payments.v1 import payment_service_pb2 as pb
from services.kit.ids import new_id

# A test number of the card schemes; it passes the Luhn check.
CARD = "4242424242424242"


@dataclass(frozen=True)
class Refusal:
    code: grpc.StatusCode
    reason: str
    fields: list[str]
    message: str


def refusal(call: Callable[[], object]) -> Refusal:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    status = rpc_status.from_call(cast("grpc.Call", caught.value))
    info, violations = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in status.details:
        detail.Unpack(info)
        detail.Unpack(violations)
    fields = [violation.field for violation in violations.field_violations]
    return Refusal(caught.value.code(), info.reason, fields, f"{status}")


def create_method(client: Client, **given: str) -> methods_pb.PaymentMethod:
    method = methods_pb.PaymentMethod(provider="sandbox", provider_token="sandbox_ok")
    for name in ("provider", "provider_token"):
        if name in given:
            setattr(method, name, given[name])
    return client.methods.CreatePaymentMethod(
        methods_pb.CreatePaymentMethodRequest(
            customer_id=given.get("customer_id", "cus_1"),
            payment_method=method,
            request_id=given.get("request_id", ""),
        )
    )


def test_the_first_method_becomes_the_default(client: Client) -> None:
    customer = new_id("cus")
    first = client.add_method("sandbox_ok", customer)
    second = client.add_method("sandbox_card_expired", customer)

    assert first.id.startswith("pm_")
    assert (first.is_default, second.is_default) == (True, False)
    assert client.payments.CreatePayment(client.request(customer)).payment_method_id == first.id


def test_a_method_that_asks_for_it_becomes_the_default(client: Client) -> None:
    customer = new_id("cus")
    first = client.add_method("sandbox_ok", customer)
    method = methods_pb.PaymentMethod(provider="sandbox", provider_token="sandbox_ok", is_default=True)
    second = client.methods.CreatePaymentMethod(
        methods_pb.CreatePaymentMethodRequest(customer_id=customer, payment_method=method)
    )

    listed = client.methods.ListPaymentMethods(methods_pb.ListPaymentMethodsRequest(customer_id=customer))
    assert [(each.id, each.is_default) for each in listed.payment_methods] == [(first.id, False), (second.id, True)]


def test_a_method_is_shown_to_its_customer_only(client: Client) -> None:
    method = client.add_method("sandbox_ok")
    get = client.methods.GetPaymentMethod

    named = methods_pb.GetPaymentMethodRequest(customer_id=method.customer_id, payment_method_id=method.id)
    assert get(named) == method
    named.customer_id = "cus_other"
    refused = refusal(lambda: get(named))
    assert (refused.code, refused.reason) == (grpc.StatusCode.NOT_FOUND, "PAYMENT_METHOD_NOT_FOUND")


def test_methods_are_listed_page_by_page(client: Client) -> None:
    customer = new_id("cus")
    added = [client.add_method("sandbox_ok", customer).id for _ in range(3)]
    request = methods_pb.ListPaymentMethodsRequest(customer_id=customer, page_size=2)

    first = client.methods.ListPaymentMethods(request)
    request.page_token = first.next_page_token
    second = client.methods.ListPaymentMethods(request)

    assert [method.id for page in (first, second) for method in page.payment_methods] == added
    assert not second.next_page_token


def test_the_same_method_request_is_answered_alike(client: Client) -> None:
    request_id = new_id("req")
    first = create_method(client, request_id=request_id)

    assert create_method(client, request_id=request_id) == first
    refused = refusal(lambda: create_method(client, request_id=request_id, provider_token="sandbox_card_expired"))
    assert (refused.code, refused.reason) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")


def test_an_unknown_provider_is_refused_with_the_known_ones(client: Client) -> None:
    refused = refusal(lambda: create_method(client, provider="paypal"))
    assert (refused.code, refused.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "UNKNOWN_PROVIDER")
    assert refused.fields == ["payment_method.provider"]
    assert "sandbox" in refused.message


def test_a_token_that_the_provider_does_not_know_is_refused(client: Client) -> None:
    refused = refusal(lambda: create_method(client, provider_token="tok_1"))
    assert (refused.code, refused.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "UNKNOWN_TOKEN")
    assert refused.fields == ["payment_method.provider_token"]


@pytest.mark.parametrize("written", [CARD, "4242 4242 4242 4242", "4242-4242-4242-4242", "378282246310005"])
def test_a_card_number_is_refused_and_not_repeated(
    client: Client, caplog: pytest.LogCaptureFixture, written: str
) -> None:
    refused = refusal(lambda: create_method(client, provider_token=written))

    assert (refused.code, refused.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "CARD_NUMBER_REFUSED")
    assert refused.fields == ["payment_method.provider_token"]
    assert written not in refused.message
    assert written not in caplog.text


@pytest.mark.parametrize("field", ["customer_id", "provider", "provider_token"])
def test_a_missing_field_of_a_method_is_named(client: Client, field: str) -> None:
    refused = refusal(lambda: create_method(client, **{field: ""}))
    assert refused.reason == "MISSING"
    assert refused.fields[0].endswith(field)


def test_the_same_payment_request_gets_the_same_payment(client: Client) -> None:
    request = client.request(client.add_method("sandbox_ok").customer_id)
    first = client.payments.CreatePayment(request)

    assert client.payments.CreatePayment(request).id == first.id
    listed = client.payments.ListPayments(pb.ListPaymentsRequest(customer_id=first.customer_id))
    assert len(listed.payments) == 1


def test_a_payment_request_id_with_other_content_is_refused(client: Client) -> None:
    request = client.request(client.add_method("sandbox_ok").customer_id)
    client.payments.CreatePayment(request)
    request.payment.amount.units += 1

    refused = refusal(lambda: client.payments.CreatePayment(request))
    assert (refused.code, refused.reason) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")


def test_without_a_method_nothing_is_collected(client: Client) -> None:
    request = client.request(new_id("cus"))
    refused = refusal(lambda: client.payments.CreatePayment(request))
    assert (refused.code, refused.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NO_PAYMENT_METHOD")

    # The refusal used up no request id.
    client.add_method("sandbox_ok", request.payment.customer_id)
    assert client.payments.CreatePayment(request).state == pb.PAYMENT_STATE_PENDING


def test_another_customers_method_is_not_charged(client: Client) -> None:
    mine, other = client.add_method("sandbox_ok"), client.add_method("sandbox_ok")
    request = client.request(mine.customer_id)
    request.payment.payment_method_id = other.id

    refused = refusal(lambda: client.payments.CreatePayment(request))
    assert (refused.code, refused.reason) == (grpc.StatusCode.NOT_FOUND, "PAYMENT_METHOD_NOT_FOUND")


@pytest.mark.parametrize(
    ("amount", "field"),
    [
        (money_pb2.Money(currency_code="INR"), "payment.amount"),
        (money_pb2.Money(currency_code="INR", units=-5), "payment.amount"),
        (money_pb2.Money(currency_code="INR", nanos=1), "payment.amount"),
        (money_pb2.Money(currency_code="XYZ", units=5), "currency"),
        (money_pb2.Money(units=5), "currency"),
        (None, "payment.amount"),
    ],
    ids=["zero", "negative", "finer than a paisa", "unknown currency", "no currency", "missing"],
)
def test_what_is_no_amount_due_is_refused(client: Client, amount: money_pb2.Money | None, field: str) -> None:
    request = client.request(client.add_method("sandbox_ok").customer_id)
    request.payment.ClearField("amount")
    if amount is not None:
        request.payment.amount.CopyFrom(amount)

    refused = refusal(lambda: client.payments.CreatePayment(request))
    assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refused.fields == [field]


def test_a_payment_needs_a_request_id_and_a_customer(client: Client) -> None:
    request = client.request("")
    assert refusal(lambda: client.payments.CreatePayment(request)).fields == ["payment.customer_id"]
    request.request_id = ""
    assert refusal(lambda: client.payments.CreatePayment(request)).fields == ["request_id"]


@pytest.mark.parametrize(("invoice", "reason"), [("inv\0", "NUL_CHARACTER"), ("i" * 257, "TOO_LONG")])
def test_text_that_cannot_be_kept_is_refused(client: Client, invoice: str, reason: str) -> None:
    request = client.request(client.add_method("sandbox_ok").customer_id, invoice=invoice)
    refused = refusal(lambda: client.payments.CreatePayment(request))
    assert (refused.reason, refused.fields) == (reason, ["payment.invoice_id"])


def test_an_unknown_payment_is_not_found(client: Client) -> None:
    refused = refusal(lambda: client.payments.GetPayment(pb.GetPaymentRequest(payment_id="pay_0")))
    assert (refused.code, refused.reason) == (grpc.StatusCode.NOT_FOUND, "PAYMENT_NOT_FOUND")


def test_payments_are_listed_newest_first_and_by_invoice(client: Client) -> None:
    customer = client.add_method("sandbox_ok").customer_id
    made = [client.payments.CreatePayment(client.request(customer, invoice=f"inv_{customer}_{n}")) for n in range(3)]
    request = pb.ListPaymentsRequest(customer_id=customer, page_size=2)

    first = client.payments.ListPayments(request)
    request.page_token = first.next_page_token
    second = client.payments.ListPayments(request)
    assert [payment.id for page in (first, second) for payment in page.payments] == [
        payment.id for payment in reversed(made)
    ]
    by_invoice = client.payments.ListPayments(pb.ListPaymentsRequest(invoice_id=made[1].invoice_id))
    assert list(by_invoice.payments) == [made[1]]


def test_a_page_token_of_another_list_is_refused(client: Client) -> None:
    request = pb.ListPaymentsRequest(customer_id="cus_1", page_token="bm90IGEgdG9rZW4")
    assert refusal(lambda: client.payments.ListPayments(request)).fields == ["page_token"]
