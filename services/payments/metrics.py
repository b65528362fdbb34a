"""The instruments of payments, declared once. Names and labels: the telemetry catalogue."""

from collections.abc import Iterable
from datetime import timedelta
from typing import Final

from opentelemetry.metrics import Meter

from services.kit.money import Money
from services.payments.domain.retry import CARD_EXPIRED, INSUFFICIENT_FUNDS, PROVIDER_DOWN

# 5 is the bound of the latency alert.
_BOUNDARIES: Final = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class PaymentMetrics:
    """Counts what became of attempts."""

    def __init__(self, meter: Meter, providers: Iterable[str]) -> None:
        """Declare the instruments; each provider's counters start at 0, so that `rate` sees the first failure."""
        self._success = meter.create_counter("billing.payment.success", description="Attempts that moved money")
        self._failure = meter.create_counter("billing.payment.failure", description="Attempts that moved none")
        self._collected = meter.create_counter(
            "billing.payments.collected", description="Money collected, in the currency's main unit"
        )
        self._duration = meter.create_histogram(
            "billing.payment.processing.duration",
            unit="s",
            description="Time that the provider took to answer",
            explicit_bucket_boundaries_advisory=_BOUNDARIES,
        )
        for provider in providers:
            self._success.add(0, {"gateway": provider})
            for reason in (INSUFFICIENT_FUNDS, CARD_EXPIRED, PROVIDER_DOWN):
                self._failure.add(0, {"gateway": provider, "reason": reason})

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
