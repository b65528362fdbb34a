"""What can be wrong with a request to the payments service, one sentence each."""

from collections.abc import Sequence

from services.kit.errors import FailedPrecondition, InvalidArgument, NotFound


class PaymentNotFound(NotFound):
    """There is no payment of this id."""

    reason = "PAYMENT_NOT_FOUND"


class PaymentMethodNotFound(NotFound):
    """The customer has no payment method of this id."""

    reason = "PAYMENT_METHOD_NOT_FOUND"


class NoPaymentMethod(FailedPrecondition):
    """The customer has no payment method, and the payment names none."""

    reason = "NO_PAYMENT_METHOD"


class InvoiceAlreadyCollected(FailedPrecondition):
    """The invoice has a payment that succeeded or may still succeed."""

    reason = "INVOICE_ALREADY_COLLECTED"


class AttemptNotAllowed(FailedPrecondition):
    """A payment that is settled, or whose last attempt has no known outcome, is not attempted again."""

    reason = "ATTEMPT_NOT_ALLOWED"


def unknown_provider(field: str, known: Sequence[str]) -> InvalidArgument:
    """Say which providers there are. The value is not repeated: people paste card numbers into any field."""
    return InvalidArgument.at(field, f"is not a provider; use one of: {', '.join(known)}", reason="UNKNOWN_PROVIDER")


def card_number_refused(field: str) -> InvalidArgument:
    """Refuse a card number without repeating it."""
    return InvalidArgument.at(
        field,
        "looks like a card number, which is never accepted; send the token that the provider gave for the card",
        reason="CARD_NUMBER_REFUSED",
    )
