"""The billing service's variables."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from services.kit.config import KitSettings
from services.kit.settings import POSTGRESQL, REDIS, SettingsError, variable
from services.kit.time_zones import is_time_zone

_MONTHS: Final = 12


@dataclass(frozen=True)
class Settings:
    """Read once at the start of a process."""

    kit: KitSettings
    database_url: str = variable(
        "BILLING_DATABASE_URL",
        "DATABASE_URL",
        secret=True,
        schemes=POSTGRESQL,
        help="PostgreSQL of the billing service, postgresql://…",
    )
    redis_url: str = variable(
        "REDIS_URL", secret=True, schemes=REDIS, help="Redis or Valkey that carries the jobs, redis://…"
    )
    address: str = variable(
        "METERSCOPE_BILLING_ADDRESS", default="127.0.0.1:8082", help="host:port of the billing service's gRPC server"
    )
    worker_address: str = variable(
        "METERSCOPE_BILLING_WORKER_ADDRESS",
        default="127.0.0.1:8092",
        help="host:port where the billing worker answers health checks",
    )
    database_schema: str = variable(
        "METERSCOPE_BILLING_SCHEMA", default="billing", help="PostgreSQL schema of the billing service's tables"
    )
    usage_address: str = variable(
        "METERSCOPE_USAGE_ADDRESS", default="127.0.0.1:8081", help="host:port of the usage service"
    )
    payments_address: str = variable(
        "METERSCOPE_PAYMENTS_ADDRESS", default="127.0.0.1:8083", help="host:port of the payments service"
    )
    alerts_address: str = variable(
        "METERSCOPE_ALERTS_ADDRESS", default="127.0.0.1:8084", help="host:port of the alerts service"
    )
    seller_id: str = variable("METERSCOPE_SELLER_ID", default="main", help="names the series of invoice numbers")
    seller_name: str = variable("METERSCOPE_SELLER_NAME", default="Meterscope", help="who the invoices are from")
    seller_time_zone: str = variable(
        "METERSCOPE_SELLER_TIME_ZONE", default="UTC", help="IANA zone whose date decides on the fiscal year"
    )
    invoice_prefix: str = variable("METERSCOPE_INVOICE_PREFIX", default="INV", help="begins each invoice number")
    fiscal_year_month: int = variable(
        "METERSCOPE_FISCAL_YEAR_MONTH",
        default=1,
        minimum=1,
        help="month, 1 to 12, with which the fiscal year begins: 4 in India",
    )
    bill_attempts: int = variable(
        "METERSCOPE_BILL_ATTEMPTS", default=10, minimum=1, help="attempts to bill a period before it counts as failed"
    )
    bill_retry: timedelta = variable(
        "METERSCOPE_BILL_RETRY_SECONDS",
        default=timedelta(seconds=1),
        minimum=0.01,
        help="wait after a failed attempt to bill; doubles with each, up to five minutes",
    )
    collect_retry: timedelta = variable(
        "METERSCOPE_COLLECT_RETRY_SECONDS",
        default=timedelta(hours=1),
        minimum=0.01,
        help="wait before an invoice of a customer without payment method is tried again",
    )
    jaeger_url: str | None = variable("JAEGER_URL", default=None, help="base URL of Jaeger, for links to traces")

    def __post_init__(self) -> None:
        """Refuse values of the right type that mean nothing.

        Raises:
            SettingsError: a line for each.
        """
        problems = []
        if not is_time_zone(self.seller_time_zone):
            problems.append(f"METERSCOPE_SELLER_TIME_ZONE {self.seller_time_zone!r} is no IANA time zone")
        if self.fiscal_year_month > _MONTHS:
            problems.append(f"METERSCOPE_FISCAL_YEAR_MONTH {self.fiscal_year_month} is no month: use 1 to {_MONTHS}")
        if problems:
            raise SettingsError(problems)
