"""Payments from the call to billing's and alerts' ears, with a worker in this process."""

from collections.abc import Callable
from decimal import Decimal

import grpc
import pytest
from eventually import eventually
from payments_harness import Client, Peers

from meterscope.alerts.v1 import alert_service_pb2 as alerts_pb
from meterscope.payments.v1 import payment_service_pb2 as pb
from services.kit.money import Money, money_from_proto

pytestmark = pytest.mark.usefixtures("worker")

Charged = Callable[[str], list[Money]]
DUE = Money(Decimal("1234.50"), "INR")


def test_a_payment_is_charged_and_billing_is_told(client: Client, peers: Peers, charged: Charged) -> None:
    created = client.pay("sandbox_ok", invoice="inv_1")
    assert created.state == pb.PAYMENT_STATE_PENDING

    paid = client.until(created.id, pb.PAYMENT_STATE_SUCCEEDED)

    assert charged(paid.id) == [DUE]
    assert [attempt.state for attempt in paid.attempts] == [pb.ATTEMPT_STATE_SUCCEEDED]
    assert paid.attempts[0].provider_reference.startswith("ch_")
    assert paid.complete_time.ToDatetime() >= paid.create_time.ToDatetime()
    told = eventually(lambda: peers.billing.of(paid.id))[0]
    assert (told.invoice_id, told.provider) == ("inv_1", "sandbox")
    assert money_from_proto(told.amount, "amount") == DUE
    assert told.request_id.startswith("obx_")
    assert peers.alerts.of(paid.id) == []


def test_insufficient_funds_are_tried_again_until_they_suffice(client: Client, peers: Peers, charged: Charged) -> None:
    created = client.pay("sandbox_insufficient_funds_once", invoice="inv_2")

    paid = client.until(created.id, pb.PAYMENT_STATE_SUCCEEDED)

    assert [attempt.failure_reason for attempt in paid.attempts] == ["insufficient_funds", ""]
    assert paid.attempts[0].idempotency_key != paid.attempts[1].idempotency_key
    # The first retry comes after 0.2 s here.
    waited = paid.attempts[1].start_time.ToDatetime() - paid.attempts[0].end_time.ToDatetime()
    assert waited.total_seconds() >= 0.2
    assert charged(paid.id) == [DUE]
    signal = eventually(lambda: peers.alerts.of(paid.id))[0]
    assert (signal.type, signal.severity) == ("payment_failed", alerts_pb.SEVERITY_WARNING)
    assert signal.fingerprint == f"payment_failed:{paid.id}"
    assert signal.data["reason"] == "insufficient_funds"
    assert not signal.action_required
    eventually(lambda: peers.billing.of(paid.id))


def test_a_payment_that_never_succeeds_is_given_up(client: Client, peers: Peers, charged: Charged) -> None:
    created = client.pay("sandbox_insufficient_funds", invoice="inv_3")

    failed = client.until(created.id, pb.PAYMENT_STATE_FAILED)

    # Two delays are set, so three attempts are made.
    assert [attempt.failure_reason for attempt in failed.attempts] == ["insufficient_funds"] * 3
    assert failed.failure_reason == "insufficient_funds"
    assert not failed.HasField("next_attempt_time")
    assert charged(failed.id) == []
    eventually(lambda: len(peers.alerts.of(failed.id)) == 3)
    signals = peers.alerts.of(failed.id)
    assert sorted(signal.severity for signal in signals) == [
        alerts_pb.SEVERITY_WARNING,
        alerts_pb.SEVERITY_WARNING,
        alerts_pb.SEVERITY_ERROR,
    ]
    assert len({signal.request_id for signal in signals}) == 3
    # Signals of one fingerprint join one alert, and only the first notifies: people must hear of the end.
    assert {(signal.fingerprint, signal.action_required) for signal in signals} == {
        (f"payment_failed:{failed.id}", False),
        (f"payment_failed:{failed.id}:given_up", True),
    }
    assert peers.billing.of(failed.id) == []


def test_an_expired_card_is_not_tried_again(client: Client, peers: Peers, charged: Charged) -> None:
    created = client.pay("sandbox_card_expired")

    failed = client.until(created.id, pb.PAYMENT_STATE_FAILED)

    assert [attempt.failure_reason for attempt in failed.attempts] == ["card_expired"]
    assert charged(failed.id) == []
    signal = eventually(lambda: peers.alerts.of(failed.id))[0]
    assert signal.severity == alerts_pb.SEVERITY_ERROR
    assert signal.action_required


def test_a_provider_that_is_down_is_tried_again_soon(client: Client, charged: Charged) -> None:
    created = client.pay("sandbox_provider_down")

    failed = client.until(created.id, pb.PAYMENT_STATE_FAILED)

    # One delay is set for it, so two attempts are made.
    assert [attempt.failure_reason for attempt in failed.attempts] == ["provider_down", "provider_down"]
    assert charged(failed.id) == []


def test_a_lost_answer_is_asked_for_and_never_charged_again(client: Client, peers: Peers, charged: Charged) -> None:
    created = client.pay("sandbox_timeout_once", invoice="inv_4")

    unknown = client.until(created.id, pb.PAYMENT_STATE_UNKNOWN, pb.PAYMENT_STATE_SUCCEEDED)
    assert len(unknown.attempts) == 1
    paid = client.until(created.id, pb.PAYMENT_STATE_SUCCEEDED)

    assert [attempt.state for attempt in paid.attempts] == [pb.ATTEMPT_STATE_SUCCEEDED]
    assert paid.attempts[0].idempotency_key == unknown.attempts[0].idempotency_key
    assert charged(paid.id) == [DUE]
    eventually(lambda: peers.billing.of(paid.id))
    assert peers.alerts.of(paid.id) == []


def test_a_payment_for_no_invoice_tells_billing_nothing(client: Client, peers: Peers) -> None:
    created = client.pay("sandbox_ok")
    client.until(created.id, pb.PAYMENT_STATE_SUCCEEDED)

    # A later payment has been told to billing: had there been anything to tell of the first, it was there.
    later = client.pay("sandbox_ok", invoice="inv_5")
    eventually(lambda: peers.billing.of(later.id))
    assert peers.billing.of(created.id) == []


def test_an_invoice_is_collected_once_whatever_the_request_id(client: Client) -> None:
    first = client.pay("sandbox_ok", invoice="inv_collected_once")
    client.until(first.id, pb.PAYMENT_STATE_SUCCEEDED)
    again = client.request(first.customer_id, invoice="inv_collected_once")
    with pytest.raises(grpc.RpcError) as refused:
        client.payments.CreatePayment(again)
    assert refused.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    listed = client.payments.ListPayments(pb.ListPaymentsRequest(invoice_id="inv_collected_once"))
    assert [payment.id for payment in listed.payments] == [first.id]


def test_an_invoice_whose_payment_was_given_up_can_be_collected_again(client: Client) -> None:
    first = client.pay("sandbox_card_expired", invoice="inv_given_up")
    client.until(first.id, pb.PAYMENT_STATE_FAILED)
    second = client.payments.CreatePayment(client.request(first.customer_id, invoice="inv_given_up"))
    assert second.id != first.id
