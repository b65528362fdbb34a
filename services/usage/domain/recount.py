"""A recount: a meter's totals, set anew from stored events."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class RecountState(StrEnum):
    """How far a recount is."""

    RUNNING = "RUNNING"
    DONE = "DONE"


@dataclass(frozen=True)
class Recount:
    """A recount of the events of `[start, end)` and its progress."""

    number: int
    state: RecountState
    start: datetime
    end: datetime
    customers_total: int
    customers_done: int
    events_done: int
    create_time: datetime
    end_time: datetime | None
