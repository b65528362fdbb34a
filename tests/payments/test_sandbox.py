from datetime import timedelta

import pytest
from provider_contract import ProviderContract, Subject, payment  # noqa: F401 - a fixture

from services.kit.db import Database
from services.kit.money import Money
from services.payments.providers import sandbox
from services.payments.providers.sandbox import Sandbox
from services.payments.providers.sandbox_store import SandboxBooks


@pytest.fixture(scope="module")
def provider(database: Database) -> Sandbox:
    return Sandbox(SandboxBooks(database), latency=timedelta())


class TestSandbox(ProviderContract):
    @pytest.fixture
    def subject(self, provider: Sandbox) -> Subject:
        def moved(reference: str) -> list[Money]:
            return [charge.amount for charge in provider.charges(reference) if not charge.decline_reason]

        return Subject(
            provider=provider,
            ok=sandbox.OK,
            insufficient_funds=sandbox.INSUFFICIENT_FUNDS,
            insufficient_funds_once=sandbox.INSUFFICIENT_FUNDS_ONCE,
            card_expired=sandbox.CARD_EXPIRED,
            timeout_once=sandbox.TIMEOUT_ONCE,
            down=sandbox.DOWN,
            moved=moved,
        )
