"""A correction: an event counts no more, or another one counts instead of it."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple


class Kind(StrEnum):
    """What a correction does."""

    AMEND = "AMEND"
    CANCEL = "CANCEL"


class EventState(StrEnum):
    """Whether a stored event counts."""

    ACTIVE = "ACTIVE"
    AMENDED = "AMENDED"
    CANCELLED = "CANCELLED"


class Reference(NamedTuple):
    """Another event of the same customer."""

    source: str
    id: str


@dataclass(frozen=True)
class Correction:
    """What became of an event. `superseded_by` is set when it was amended; `reason` may be empty."""

    kind: Kind
    superseded_by: Reference | None
    reason: str
    time: datetime

    @property
    def state(self) -> EventState:
        """What the event is in by it."""
        return EventState.AMENDED if self.kind is Kind.AMEND else EventState.CANCELLED
