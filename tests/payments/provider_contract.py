"""What every payment provider has to pass: subclass, and give the `subject` fixture."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from decimal import Decimal

import pytest

from services.kit.errors import InvalidArgument
from services.kit.ids import new_id
from services.kit.money import Money
from services.payments.providers.base import Declined, KeyReused, Provider, ProviderDown, ProviderTimeout

AMOUNT = Money(Decimal("499.50"), "INR")


@dataclass(frozen=True)
class Subject:
    """A provider, its tokens for each outcome, and its own word on what it moved for a payment of ours."""

    provider: Provider
    ok: str
    insufficient_funds: str
    insufficient_funds_once: str
    card_expired: str
    timeout_once: str
    down: str
    moved: Callable[[str], Sequence[Money]]


@pytest.fixture
def payment() -> str:
    return new_id("pay")


class ProviderContract:
    def test_a_charge_moves_the_money_and_has_a_reference(self, subject: Subject, payment: str) -> None:
        outcome = subject.provider.charge(f"{payment}_1", AMOUNT, subject.ok, payment)

        assert outcome.reference
        assert subject.moved(payment) == [AMOUNT]

    def test_the_same_key_again_gets_the_first_outcome_and_moves_nothing(self, subject: Subject, payment: str) -> None:
        first = subject.provider.charge(f"{payment}_1", AMOUNT, subject.ok, payment)
        again = subject.provider.charge(f"{payment}_1", AMOUNT, subject.ok, payment)

        assert again == first
        assert subject.moved(payment) == [AMOUNT]

    def test_calls_at_once_under_one_key_charge_once(self, subject: Subject, payment: str) -> None:
        with ThreadPoolExecutor(4) as pool:
            calls = [
                pool.submit(subject.provider.charge, f"{payment}_1", AMOUNT, subject.ok, payment) for _ in range(8)
            ]

        assert len({call.result() for call in calls}) == 1
        assert subject.moved(payment) == [AMOUNT]

    def test_a_key_with_another_amount_is_refused(self, subject: Subject, payment: str) -> None:
        subject.provider.charge(f"{payment}_1", AMOUNT, subject.ok, payment)

        with pytest.raises(KeyReused):
            subject.provider.charge(f"{payment}_1", Money(Decimal(1), "INR"), subject.ok, payment)
        assert subject.moved(payment) == [AMOUNT]

    def test_insufficient_funds_move_nothing(self, subject: Subject, payment: str) -> None:
        for _ in range(2):
            with pytest.raises(Declined) as refused:
                subject.provider.charge(f"{payment}_1", AMOUNT, subject.insufficient_funds, payment)
            assert refused.value.reason == "insufficient_funds"
        assert subject.moved(payment) == []

    def test_an_expired_card_moves_nothing(self, subject: Subject, payment: str) -> None:
        with pytest.raises(Declined) as refused:
            subject.provider.charge(f"{payment}_1", AMOUNT, subject.card_expired, payment)
        assert refused.value.reason == "card_expired"
        assert subject.moved(payment) == []

    def test_a_new_key_after_a_refusal_is_a_new_charge(self, subject: Subject, payment: str) -> None:
        with pytest.raises(Declined):
            subject.provider.charge(f"{payment}_1", AMOUNT, subject.insufficient_funds_once, payment)
        subject.provider.charge(f"{payment}_2", AMOUNT, subject.insufficient_funds_once, payment)

        assert subject.moved(payment) == [AMOUNT]
        with pytest.raises(Declined):
            subject.provider.find(f"{payment}_1", payment)

    def test_a_charge_is_found_by_our_key(self, subject: Subject, payment: str) -> None:
        outcome = subject.provider.charge(f"{payment}_1", AMOUNT, subject.ok, payment)

        assert subject.provider.find(f"{payment}_1", payment) == outcome

    def test_a_refusal_is_found_with_its_reason(self, subject: Subject, payment: str) -> None:
        with pytest.raises(Declined):
            subject.provider.charge(f"{payment}_1", AMOUNT, subject.card_expired, payment)
        with pytest.raises(Declined) as found:
            subject.provider.find(f"{payment}_1", payment)
        assert found.value.reason == "card_expired"

    def test_what_was_never_sent_is_not_found(self, subject: Subject, payment: str) -> None:
        assert subject.provider.find(f"{payment}_1", payment) is None

    def test_a_lost_answer_is_found_and_is_one_charge(self, subject: Subject, payment: str) -> None:
        with pytest.raises(ProviderTimeout):
            subject.provider.charge(f"{payment}_1", AMOUNT, subject.timeout_once, payment)

        found = subject.provider.find(f"{payment}_1", payment)
        again = subject.provider.charge(f"{payment}_1", AMOUNT, subject.timeout_once, payment)
        assert found == again
        assert subject.moved(payment) == [AMOUNT]

    def test_a_provider_that_is_down_has_done_nothing(self, subject: Subject, payment: str) -> None:
        with pytest.raises(ProviderDown):
            subject.provider.charge(f"{payment}_1", AMOUNT, subject.down, payment)
        assert subject.provider.find(f"{payment}_1", payment) is None
        assert subject.moved(payment) == []

    def test_its_own_tokens_pass(self, subject: Subject) -> None:
        subject.provider.check_token(subject.ok, "payment_method.provider_token")

    def test_an_unknown_token_is_refused_and_not_repeated(self, subject: Subject) -> None:
        for token in ("tok_of_nobody", "", " " + subject.ok):
            with pytest.raises(InvalidArgument) as refused:
                subject.provider.check_token(token, "payment_method.provider_token")
            assert refused.value.violations[0].field == "payment_method.provider_token"
            assert "nobody" not in refused.value.message
