"""What the provider did is not known, because a worker died or no answer came: one charge all the same."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal

import pytest
from eventually import eventually
from payments_harness import Client, Peers, StartWorker

from meterscope.payments.v1 import payment_service_pb2 as pb
from services.kit.money import Money
from services.payments.providers.base import Outcome, ProviderDown
from services.payments.providers.sandbox import Sandbox

DUE = Money(Decimal("1234.50"), "INR")


@dataclass
class Dying:
    """The sandbox, reached from a process that dies at the first charge: before it was sent, or after it was made."""

    sandbox: Sandbox
    charge_first: bool
    died: threading.Event = field(default_factory=threading.Event)
    name: str = "sandbox"

    def check_token(self, token: str, field: str) -> None:
        self.sandbox.check_token(token, field)

    def charge(self, idempotency_key: str, amount: Money, token: str, reference: str) -> Outcome:
        if self.charge_first:
            self.sandbox.charge(idempotency_key, amount, token, reference)
        self.died.set()
        raise SystemExit

    def find(self, idempotency_key: str, reference: str) -> Outcome | None:
        raise SystemExit


@pytest.mark.parametrize("charge_first", [True, False], ids=["after the charge", "before the charge"])
def test_a_worker_that_dies_leaves_one_charge(
    client: Client,
    peers: Peers,
    sandbox: Sandbox,
    charged: Callable[[str], list[Money]],
    start_worker: StartWorker,
    charge_first: bool,  # noqa: FBT001 - the parameter's name says it
) -> None:
    dying = Dying(sandbox, charge_first=charge_first)
    start_worker({"sandbox": dying})
    created = client.pay("sandbox_ok", invoice=f"inv_dying_{charge_first}")
    assert dying.died.wait(10)
    stuck = client.until(created.id, pb.PAYMENT_STATE_PROCESSING)
    assert charged(stuck.id) == ([DUE] if charge_first else [])

    start_worker(None)
    paid = client.until(created.id, pb.PAYMENT_STATE_SUCCEEDED)

    assert charged(paid.id) == [DUE]
    assert [attempt.idempotency_key for attempt in paid.attempts] == [stuck.attempts[0].idempotency_key]
    assert len(eventually(lambda: peers.billing.of(paid.id))) == 1


@dataclass
class Silent:
    """The sandbox, which cannot be asked about charges the first two times."""

    sandbox: Sandbox
    asked: int = 0
    name: str = "sandbox"

    def check_token(self, token: str, field: str) -> None:
        self.sandbox.check_token(token, field)

    def charge(self, idempotency_key: str, amount: Money, token: str, reference: str) -> Outcome:
        return self.sandbox.charge(idempotency_key, amount, token, reference)

    def find(self, idempotency_key: str, reference: str) -> Outcome | None:
        self.asked += 1
        if self.asked <= 2:
            raise ProviderDown("no answer")
        return self.sandbox.find(idempotency_key, reference)


def test_nothing_is_tried_before_the_provider_has_answered(
    client: Client, sandbox: Sandbox, charged: Callable[[str], list[Money]], start_worker: StartWorker
) -> None:
    silent = Silent(sandbox)
    start_worker({"sandbox": silent})
    created = client.pay("sandbox_timeout_once")

    unknown = client.until(created.id, pb.PAYMENT_STATE_UNKNOWN)
    assert [attempt.state for attempt in unknown.attempts] == [pb.ATTEMPT_STATE_UNKNOWN]
    assert not unknown.HasField("next_attempt_time")
    paid = client.until(created.id, pb.PAYMENT_STATE_SUCCEEDED)

    assert silent.asked == 3
    assert [attempt.idempotency_key for attempt in paid.attempts] == [unknown.attempts[0].idempotency_key]
    assert charged(paid.id) == [DUE]
