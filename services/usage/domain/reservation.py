"""Reservations: quota that is set aside for use that is about to happen."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum


class ReservationState(StrEnum):
    """Where a reservation stands. COMMITTED counts until the totals hold its event."""

    OPEN = "OPEN"
    COMMITTED = "COMMITTED"
    RELEASED = "RELEASED"
    EXPIRED = "EXPIRED"


@dataclass(frozen=True)
class Reservation:
    """Quota of a meter. Source and id of the event are empty unless it is committed."""

    id: str
    customer_id: str
    meter: str
    quantity: Decimal
    state: ReservationState
    create_time: datetime
    expire_time: datetime
    event_source: str = ""
    event_id: str = ""

    def names(self, source: str, event_id: str, quantity: Decimal) -> bool:
        """Say whether this is what it was committed with."""
        return (self.event_source, self.event_id, self.quantity) == (source, event_id, quantity)
