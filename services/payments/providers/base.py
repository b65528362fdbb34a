"""What every payment provider does, and how it says what went wrong.

ProviderError
├── Declined          it answered no: no money moved
├── ProviderDown      it was not reached, or refused to work: no money moved
├── ProviderTimeout   its answer is lost: the money may have moved
└── KeyReused         one key with two requests: a fault of ours
"""

from dataclasses import dataclass
from typing import Protocol

from services.kit.money import Money


@dataclass(frozen=True)
class Outcome:
    """The money moved. `reference` is the provider's own id of the charge."""

    reference: str


class ProviderError(Exception):
    """The root."""


class Declined(ProviderError):
    """The provider refused and no money moved.

    Attributes:
        reason: in our words, whatever the provider's are: `insufficient_funds`, `card_expired`, …
        reference: the provider's own id of the refused charge, empty where it gave none.
    """

    def __init__(self, reason: str, reference: str = "") -> None:
        super().__init__(f"declined: {reason}")
        self.reason = reason
        self.reference = reference


class ProviderDown(ProviderError):
    """The provider surely did nothing: no connection, or it says that it does not work. Raised on nothing less."""


class ProviderTimeout(ProviderError):
    """It is not known what the provider did: it has to be asked by `find` before anything else is tried."""


class KeyReused(ProviderError):
    """An idempotency key came with another amount, token or reference than before."""


class Provider(Protocol):
    """A provider of payments. No transaction is open while one is called."""

    @property
    def name(self) -> str:
        """What payment methods, metrics and the ledger's cash account call it."""

    def check_token(self, token: str, field: str) -> None:
        """Pass if the provider knows the token of a payment method.

        Raises:
            InvalidArgument: names `field` and what is wrong, without the token.
        """

    def charge(self, idempotency_key: str, amount: Money, token: str, reference: str) -> Outcome:
        """Move the money, once per key: the same key again gets the first outcome and moves nothing.

        Args:
            idempotency_key: ours, kept with the charge so that `find` knows it.
            amount: above zero, rounded to the currency's smallest unit.
            token: the payment method.
            reference: our payment's id, kept with the charge.

        Raises:
            Declined, ProviderDown, ProviderTimeout, KeyReused: see there.
        """

    def find(self, idempotency_key: str, reference: str) -> Outcome | None:
        """Return what became of a charge, by our own key: None only if the provider surely has none.

        Works however long ago the charge was, also where the provider has forgotten the key for `charge` (Stripe does
        after 24 h): by what it keeps with the charge, its metadata or receipt.

        Raises:
            Declined: the charge is there and was refused.
            ProviderDown, ProviderTimeout: no answer; nothing is known.
        """
