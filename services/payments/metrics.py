"""The instruments of payments, declared once. Names and labels: the telemetry catalogue."""

from collections.abc import Iterable
from datetime import timedelta
from typing import Final

from opentelemetry.metrics import Meter

from services.kit.instruments import Counter, Histogram, Label
from services.kit.money import Money
from services.payments.domain.retry import CARD_EXPIRED, INSUFFICIENT_FUNDS, PROVIDER_DOWN

_GATEWAY: Final = Label("gateway")

SUCCESS: Final = Counter("billing.payment.success", "Attempts that moved money", labels=(_GATEWAY,))
FAILURE: Final = Counter(
    "billing.payment.failure",
    "Attempts that moved none",
    labels=(_GATEWAY, Label("reason", (INSUFFICIENT_FUNDS, CARD_EXPIRED, PROVIDER_DOWN))),
)
COLLECTED: Final = Counter(
    "billing.payments.collected", "Money collected, in the currency's main unit", labels=(Label("currency"),)
)
PROCESSING_DURATION: Final = Histogram(
    "billing.payment.processing.duration",
    "Time that the provider took to answer",
    unit="s",
    labels=(_GATEWAY,),
    boundaries=(0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
    alerts=(5,),
)


class PaymentMetrics:
    """Counts what became of attempts."""

    def __init__(self, meter: Meter, providers: Iterable[str]) -> None:
        """Make the instruments; each provider's counters start at 0, so that `rate` sees the first failure."""
        self._success = SUCCESS.build(meter)
        self._failure = FAILURE.build(meter)
        self._collected = COLLECTED.build(meter)
        self._duration = PROCESSING_DURATION.build(meter)
        for provider in providers:
            SUCCESS.start(self._success, {"gateway": provider})
            FAILURE.start(self._failure, {"gateway": provider})

    def answered(self, provider: str, duration: timedelta) -> None:
        """Record how long a provider was waited for."""
        self._duration.record(duration.total_seconds(), {"gateway": provider})

    def succeeded(self, provider: str, amount: Money) -> None:
        """Count an attempt that moved money."""
        self._success.add(1, {"gateway": provider})
        # The ledger carries the money; this number is for looking at, and OpenTelemetry has no decimals.
        self._collected.add(float(amount.amount), {"currency": amount.currency})

    def failed(self, provider: str, reason: str) -> None:
        """Count an attempt that surely moved none."""
        self._failure.add(1, {"gateway": provider, "reason": reason})
