"""Invoice numbers: without gaps per seller and fiscal year."""

from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo


@dataclass(frozen=True)
class Seller:
    """Who demands the money.

    Attributes:
        id: names the number series.
        prefix: begins each number.
        time_zone: IANA name of the zone whose date decides on the fiscal year.
        fiscal_year_month: the month, 1 to 12, with which the fiscal year begins: 4 in India, 1 with calendar years.
    """

    id: str
    prefix: str
    time_zone: str
    fiscal_year_month: int

    def fiscal_year(self, now: datetime) -> str:
        """Return the fiscal year: `2026`, or `2627` where it spans two calendar years."""
        local = now.astimezone(ZoneInfo(self.time_zone))
        if self.fiscal_year_month == 1:
            return f"{local.year:04d}"
        first = local.year if local.month >= self.fiscal_year_month else local.year - 1
        return f"{first % 100:02d}{(first + 1) % 100:02d}"

    def number(self, fiscal_year: str, position: int) -> str:
        """Return the number, such as `INV-2627-000001`: within the 16 characters of India's CGST rule 46."""
        return f"{self.prefix}-{fiscal_year}-{position:06d}"
