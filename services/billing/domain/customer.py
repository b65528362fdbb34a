"""Customers: who uses and pays."""

import enum
from dataclasses import dataclass
from datetime import datetime

from services.kit import money
from services.kit.errors import FieldViolation, InvalidArgument
from services.kit.time_zones import is_time_zone

MAX_TEXT_BYTES = 256


class CustomerState(enum.StrEnum):
    """Where a customer stands."""

    PENDING = "PENDING"
    ACTIVE = "ACTIVE"
    SUSPENDED = "SUSPENDED"
    CLOSED = "CLOSED"


@dataclass(frozen=True)
class Customer:
    """A customer. `revision` grows with each change that usage has to know."""

    id: str
    external_key: str
    display_name: str
    state: CustomerState
    currency: str
    time_zone: str
    revision: int
    create_time: datetime


def check(*, external_key: str, display_name: str, currency: str, time_zone: str) -> None:
    """Refuse a customer that cannot be served.

    Raises:
        InvalidArgument: naming every field that is wrong.
    """
    violations = [
        *text_violations("customer.display_name", display_name),
        *text_violations("customer.external_key", external_key, least=0),
        *currency_violations("customer.currency", currency),
    ]
    if not is_time_zone(time_zone):
        violations.append(
            FieldViolation("customer.time_zone", f"{time_zone!r} is no IANA time zone; use a name such as Asia/Kolkata")
        )
    refuse(violations)


def refuse(violations: list[FieldViolation]) -> None:
    """Raise InvalidArgument with all violations, if there are any."""
    if violations:
        raise InvalidArgument("; ".join(f"{v.field}: {v.description}" for v in violations), violations=violations)


def text_violations(field: str, text: str, *, least: int = 1) -> list[FieldViolation]:
    """Return what is wrong with a text of `least` to 256 bytes of UTF-8."""
    size = len(text.encode())
    if not least <= size <= MAX_TEXT_BYTES:
        return [FieldViolation(field, f"has {size} bytes; {least} to {MAX_TEXT_BYTES} are allowed")]
    return []


def currency_violations(field: str, currency: str) -> list[FieldViolation]:
    """Return what is wrong with a currency code."""
    try:
        money.exponent(currency)
    except InvalidArgument as error:
        return [FieldViolation(field, violation.description) for violation in error.violations]
    return []
