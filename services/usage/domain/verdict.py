"""What becomes of an event that was sent."""

from enum import IntEnum
from typing import Final, NamedTuple

from services.usage.domain.event import Event, Rejected


class Outcome(IntEnum):
    """As in the contract, number for number."""

    ACCEPTED = 1
    DUPLICATE = 2
    CONFLICT = 3
    QUARANTINED = 4
    REJECTED = 5


# As metrics, spans and logs have them. Worked out once: an enum's own is a function's work.
OUTCOME_NAMES: Final = {outcome: outcome.name.lower() for outcome in Outcome}


class Verdict(NamedTuple):
    """What became of one event; `reason`, `field` and `message` are empty when it was accepted."""

    outcome: Outcome
    reason: str = ""
    field: str = ""
    message: str = ""


ACCEPTED: Final = Verdict(Outcome.ACCEPTED)
DUPLICATE: Final = Verdict(
    Outcome.DUPLICATE, "ALREADY_STORED", "id", "stored before with the same content; it counts once"
)
CONFLICT: Final = Verdict(
    Outcome.CONFLICT,
    "OTHER_CONTENT",
    "id",
    "this customer, source and id are stored with other content; send another event under a new id",
)
TOO_OLD: Final = Verdict(
    Outcome.REJECTED, "TOO_OLD", "time", "older than events are accepted (METERSCOPE_USAGE_ACCEPT_DAYS)"
)
UNSTORABLE: Final = Verdict(
    Outcome.REJECTED, "UNSTORABLE", "", "the database refuses this event; the server's log has its reason"
)

UNKNOWN_CUSTOMER: Final = "UNKNOWN_CUSTOMER"
UNKNOWN_EVENT_TYPE: Final = "UNKNOWN_EVENT_TYPE"


def rejected(error: Rejected) -> Verdict:
    """Return the verdict on an event that is wrong in itself."""
    return Verdict(Outcome.REJECTED, error.reason, error.field, error.message)


def quarantined(event: Event, reason: str) -> Verdict:
    """Return the verdict on an event that is held for `reason`."""
    if reason == UNKNOWN_EVENT_TYPE:
        message = f"no meter counts events of type {event.type.decode()!r} yet; create one and replay"
        return Verdict(Outcome.QUARANTINED, reason, "type", message)
    field = "customer_id" if event.customer_id else "customer_key"
    name = event.customer_id or event.customer_key
    return Verdict(Outcome.QUARANTINED, reason, field, f"no customer {name!r} is known; create it and replay")
