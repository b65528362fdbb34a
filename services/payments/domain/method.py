"""A means to pay: a provider's token, never card data."""

from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True)
class PaymentMethod:
    """How a customer pays.

    Attributes:
        id: `pm_…`.
        provider: the provider that knows the token; a method is not portable to another one.
        provider_token: the provider's own name for it.
        is_default: whether payments use it when they name none; a customer has one default.
    """

    id: str
    customer_id: str
    provider: str
    provider_token: str = field(repr=False)
    is_default: bool
    create_time: datetime


@dataclass(frozen=True)
class NewPaymentMethod:
    """What a caller asks to add. See PaymentMethod."""

    customer_id: str
    provider: str
    provider_token: str = field(repr=False)
    is_default: bool
