"""Invoices as pages for people: one self-contained HTML document each, made to be read, printed and mailed."""

from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

import jinja2

from services.billing.domain.invoice import Invoice
from services.billing.domain.trace import TraceLinks
from services.kit.money import exponent, plain

_TEMPLATES: Final = Path(__file__).parent / "templates"


class InvoicePage:
    """Renders invoices."""

    def __init__(self, seller_name: str, links: TraceLinks) -> None:
        self._seller_name = seller_name
        self._links = links
        self._environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(_TEMPLATES),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters["number"] = _number

    def render(self, invoice: Invoice, time_zone: str) -> bytes:
        """Return the page as UTF-8, with its times in the given IANA zone."""
        zone = ZoneInfo(time_zone)
        digits = exponent(invoice.currency)

        def money(amount: Decimal) -> str:
            return f"{amount:,.{digits}f}"

        def moment(instant: datetime) -> str:
            return f"{instant.astimezone(zone):%-d %B %Y, %H:%M}"

        values: dict[str, Any] = {
            "invoice": invoice,
            "seller": self._seller_name,
            "time_zone": time_zone,
            "money": money,
            "moment": moment,
            "trace_link": self._links.to,
        }
        return self._environment.get_template("invoice.html").render(values).encode()


def _number(number: Decimal) -> str:
    """Write a number with thousands apart and no trailing zeros."""
    return f"{Decimal(plain(number)):,f}"
