"""When a failed payment is tried again: by the reason of the failure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

INSUFFICIENT_FUNDS: Final = "insufficient_funds"
CARD_EXPIRED: Final = "card_expired"
PROVIDER_DOWN: Final = "provider_down"


@dataclass(frozen=True)
class RetrySchedule:
    """How long to wait after the first, second, … failure of a reason. A reason without delays is final.

    No further charge is tried on a method that cannot succeed (an expired card): card networks fine it.
    """

    delays: Mapping[str, Sequence[timedelta]]

    def delay(self, reason: str, failures: Sequence[str]) -> timedelta | None:
        """Return how long to wait before the next attempt, None to give up.

        Args:
            reason: why the last attempt failed.
            failures: the reasons of all failed attempts, the last one included; each reason counts by itself, so that
                an outage of the provider uses up no retry of the customer.
        """
        delays = self.delays.get(reason, ())
        used = failures.count(reason) - 1
        return delays[used] if used < len(delays) else None
