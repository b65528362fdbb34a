"""Variables of the payments service, read once."""

from dataclasses import dataclass
from datetime import timedelta

from services.kit.config import KitSettings
from services.kit.settings import POSTGRESQL, REDIS, SettingsError, variable
from services.payments.domain.retry import INSUFFICIENT_FUNDS, PROVIDER_DOWN, RetrySchedule


@dataclass(frozen=True)
class Settings:
    """What the payments service needs to know."""

    kit: KitSettings
    database_url: str = variable(
        "PAYMENTS_DATABASE_URL",
        "DATABASE_URL",
        secret=True,
        schemes=POSTGRESQL,
        help="PostgreSQL of the payments service",
    )
    redis_url: str = variable("REDIS_URL", secret=True, schemes=REDIS, help="Redis or Valkey, the broker of the jobs")
    database_schema: str = variable(
        "METERSCOPE_PAYMENTS_SCHEMA", default="payments", help="schema of the payments service's tables"
    )
    address: str = variable(
        "METERSCOPE_PAYMENTS_ADDRESS", default="127.0.0.1:8083", help="where the payments service listens"
    )
    worker_address: str = variable(
        "METERSCOPE_PAYMENTS_WORKER_ADDRESS",
        default="127.0.0.1:8093",
        help="where the payments worker answers health checks",
    )
    billing_address: str = variable("METERSCOPE_BILLING_ADDRESS", default="127.0.0.1:8082", help="the billing service")
    alerts_address: str = variable("METERSCOPE_ALERTS_ADDRESS", default="127.0.0.1:8084", help="the alerts service")
    insufficient_funds_delays: tuple[str, ...] = variable(
        "METERSCOPE_PAYMENT_RETRY_DELAYS",
        default=("86400", "259200", "604800"),
        help="seconds to wait before each retry after insufficient funds, separated by commas",
    )
    provider_down_delays: tuple[str, ...] = variable(
        "METERSCOPE_PAYMENT_PROVIDER_DOWN_DELAYS",
        default=("2", "10", "60", "300", "1800"),
        help="seconds to wait before each retry while the provider is down, separated by commas",
    )
    reconcile_delay: timedelta = variable(
        "METERSCOPE_PAYMENT_RECONCILE_SECONDS",
        default=timedelta(seconds=10),
        minimum=0,
        help="how long to wait before the provider is asked (again) about an attempt whose answer was lost",
    )
    sandbox_latency: timedelta = variable(
        "METERSCOPE_SANDBOX_LATENCY_SECONDS",
        default=timedelta(milliseconds=20),
        minimum=0,
        help="how long the sandbox provider takes to answer",
    )

    def __post_init__(self) -> None:
        """Refuse delays that are none.

        Raises:
            SettingsError: names the variable.
        """
        _delays("METERSCOPE_PAYMENT_RETRY_DELAYS", self.insufficient_funds_delays)
        _delays("METERSCOPE_PAYMENT_PROVIDER_DOWN_DELAYS", self.provider_down_delays)

    @property
    def schedule(self) -> RetrySchedule:
        """When failed payments are tried again; reasons that are not listed are final."""
        return RetrySchedule(
            {
                INSUFFICIENT_FUNDS: _delays("METERSCOPE_PAYMENT_RETRY_DELAYS", self.insufficient_funds_delays),
                PROVIDER_DOWN: _delays("METERSCOPE_PAYMENT_PROVIDER_DOWN_DELAYS", self.provider_down_delays),
            }
        )


def _delays(name: str, seconds: tuple[str, ...]) -> tuple[timedelta, ...]:
    try:
        delays = tuple(timedelta(seconds=float(part)) for part in seconds)
    except (ValueError, OverflowError):
        delays = (timedelta(-1),)
    if any(delay < timedelta() for delay in delays):
        raise SettingsError([f"{name} {','.join(seconds)!r} is not a list of seconds such as 60,3600"])
    return delays
