"""The gateway's variables."""

from dataclasses import dataclass
from datetime import timedelta

from services.kit.config import KitSettings
from services.kit.settings import variable


@dataclass(frozen=True)
class Settings:
    """What the gateway needs to know."""

    kit: KitSettings
    address: str = variable("METERSCOPE_GATEWAY_ADDRESS", default="127.0.0.1:8080", help="host:port of HTTP")
    usage_address: str = variable(
        "METERSCOPE_USAGE_ADDRESS", default="127.0.0.1:8081", help="host:port of the usage service"
    )
    billing_address: str = variable(
        "METERSCOPE_BILLING_ADDRESS", default="127.0.0.1:8082", help="host:port of the billing service"
    )
    payments_address: str = variable(
        "METERSCOPE_PAYMENTS_ADDRESS", default="127.0.0.1:8083", help="host:port of the payments service"
    )
    alerts_address: str = variable(
        "METERSCOPE_ALERTS_ADDRESS", default="127.0.0.1:8084", help="host:port of the alerts service"
    )
    deadline: timedelta = variable(
        "METERSCOPE_GATEWAY_DEADLINE_SECONDS",
        default=timedelta(seconds=30),
        minimum=0.001,
        help="time that a service gets to answer a REST call",
    )

    stream_deadline: timedelta = variable(
        "METERSCOPE_GATEWAY_STREAM_DEADLINE_SECONDS",
        default=timedelta(hours=1),
        minimum=0.001,
        help="time that a file sent by REST may take to come in and be answered",
    )

    @property
    def addresses(self) -> dict[str, str]:
        """The services' addresses by name."""
        return {
            "usage": self.usage_address,
            "billing": self.billing_address,
            "payments": self.payments_address,
            "alerts": self.alerts_address,
        }
