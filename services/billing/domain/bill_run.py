"""Bill runs: one closing of the periods that ended by an instant."""

import enum
from dataclasses import dataclass
from datetime import datetime

from services.billing.domain.period import Period


class BillRunState(enum.StrEnum):
    """Where a bill run stands."""

    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    PARTLY_FAILED = "PARTLY_FAILED"


class ItemState(enum.StrEnum):
    """What became of a period of a bill run."""

    OPEN = "OPEN"
    INVOICED = "INVOICED"
    FAILED = "FAILED"


@dataclass(frozen=True)
class Item:
    """A period that a bill run closes."""

    bill_run_id: str
    customer_id: str
    subscription_id: str
    period_number: int
    period: Period


@dataclass(frozen=True)
class Failure:
    """A period that could not be billed, and why."""

    customer_id: str
    subscription_id: str
    message: str


@dataclass(frozen=True)
class BillRun:
    """A bill run and its progress. `planned` when all due periods are found."""

    id: str
    as_of: datetime
    create_time: datetime
    trace_id: str
    planned: bool
    due: int
    invoiced: int
    failed: int
    failures: tuple[Failure, ...]
    last_end_time: datetime | None

    @property
    def state(self) -> BillRunState:
        """Where it stands."""
        if not self.planned or self.invoiced + self.failed < self.due:
            return BillRunState.RUNNING
        return BillRunState.PARTLY_FAILED if self.failed else BillRunState.SUCCEEDED

    @property
    def complete_time(self) -> datetime | None:
        """When its last job ended; None while it runs. A run that found nothing ended when it began."""
        if self.state is BillRunState.RUNNING:
            return None
        return self.last_end_time or self.create_time
