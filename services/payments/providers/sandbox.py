"""The built-in provider: the token of the payment method chooses what happens.

It keeps books of its own, as a remote provider does, so that what it says it charged can be held against what we say.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Final

from services.kit.db import is_unavailable
from services.kit.errors import InvalidArgument
from services.kit.ids import new_id
from services.kit.money import Money
from services.payments.providers.base import Declined, KeyReused, Outcome, ProviderDown, ProviderTimeout
from services.payments.providers.sandbox_store import Charge, SandboxBooks

OK: Final = "sandbox_ok"
INSUFFICIENT_FUNDS: Final = "sandbox_insufficient_funds"
INSUFFICIENT_FUNDS_ONCE: Final = "sandbox_insufficient_funds_once"
CARD_EXPIRED: Final = "sandbox_card_expired"
TIMEOUT_ONCE: Final = "sandbox_timeout_once"
DOWN: Final = "sandbox_provider_down"
TOKENS: Final = (OK, INSUFFICIENT_FUNDS, INSUFFICIENT_FUNDS_ONCE, CARD_EXPIRED, TIMEOUT_ONCE, DOWN)


class Sandbox:
    """A provider whose outcomes are chosen by token."""

    name: Final = "sandbox"

    def __init__(self, books: SandboxBooks, *, latency: timedelta) -> None:
        self._books = books
        self._latency = latency

    def check_token(self, token: str, field: str) -> None:
        """Pass if the token is one of `TOKENS`. See Provider."""
        if token not in TOKENS:
            raise InvalidArgument.at(
                field, f"the sandbox does not know this token; use one of: {', '.join(TOKENS)}", reason="UNKNOWN_TOKEN"
            )

    def charge(self, idempotency_key: str, amount: Money, token: str, reference: str) -> Outcome:
        """Move the money, once per key. See Provider."""
        time.sleep(self._latency.total_seconds())
        if token == DOWN:
            raise ProviderDown("the sandbox does not work for this token")
        with _answer_lost_with_the_connection():
            reason = self._decline_reason(token, reference)
            added = self._books.add(Charge(new_id("ch"), idempotency_key, reference, token, amount, reason))
            written = self._books.by_key(idempotency_key)
        if written is None or (written.amount, written.token, written.reference) != (amount, token, reference):
            raise KeyReused(f"key {idempotency_key} came with another amount, token or reference before")
        if added and token == TIMEOUT_ONCE:
            raise ProviderTimeout("the sandbox's first answer for this token is lost")
        return _answer(written)

    def find(self, idempotency_key: str, reference: str) -> Outcome | None:
        """Return what became of a charge. See Provider."""
        time.sleep(self._latency.total_seconds())
        with _answer_lost_with_the_connection():
            written = self._books.by_key(idempotency_key)
        return None if written is None or written.reference != reference else _answer(written)

    def charges(self, reference: str) -> Sequence[Charge]:
        """Return the books of one payment, refused charges included, first to last."""
        return self._books.by_reference(reference)

    def _decline_reason(self, token: str, reference: str) -> str:
        if token == CARD_EXPIRED:
            return "card_expired"
        first = token == INSUFFICIENT_FUNDS_ONCE and not self._books.by_reference(reference)
        return "insufficient_funds" if first or token == INSUFFICIENT_FUNDS else ""


def _answer(charge: Charge) -> Outcome:
    if charge.decline_reason:
        raise Declined(charge.decline_reason, charge.id)
    return Outcome(charge.id)


@contextmanager
def _answer_lost_with_the_connection() -> Iterator[None]:
    """A connection that broke may have broken behind the commit: what was done is not known."""
    try:
        yield
    except Exception as error:
        if is_unavailable(error):
            raise ProviderTimeout("the connection to the sandbox's books broke") from error
        raise
