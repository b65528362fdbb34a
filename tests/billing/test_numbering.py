"""Invoice numbers: without gaps per seller and fiscal year, whoever takes them at once and whatever is rolled back."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from billing_harness import utc

from services.billing.domain.numbering import Seller
from services.billing.store import invoices
from services.kit.db import Database

INDIA = Seller("india", "INV", "Asia/Kolkata", 4)
BERLIN = Seller("berlin", "RE", "Europe/Berlin", 1)


@pytest.mark.parametrize(
    ("seller", "now", "year"),
    [
        # Midnight of 1 April in Kolkata is 18:30 UTC of 31 March.
        (INDIA, "2026-03-31T18:29", "2526"),
        (INDIA, "2026-03-31T18:30", "2627"),
        (INDIA, "2027-01-15T00:00", "2627"),
        (INDIA, "2099-12-01T00:00", "9900"),
        (BERLIN, "2026-12-31T22:59", "2026"),
        (BERLIN, "2026-12-31T23:00", "2027"),
    ],
)
def test_the_fiscal_year_begins_by_the_sellers_date(seller: Seller, now: str, year: str) -> None:
    assert seller.fiscal_year(utc(now)) == year


def test_a_number_fits_the_16_characters_of_the_indian_rule() -> None:
    assert INDIA.number("2627", 1) == "INV-2627-000001"
    assert len(INDIA.number("2627", 999_999)) <= 16


class Discard(Exception):
    """Rolls a transaction back."""


def test_a_number_whose_transaction_is_rolled_back_goes_to_the_next(database: Database) -> None:
    def take(turn: int) -> str | None:
        try:
            with database.transaction() as conn:
                number = invoices.next_number(conn, BERLIN, utc("2026-05-01T00:00"))
                if turn % 3 == 0:
                    raise Discard
        except Discard:
            return None
        return number

    with ThreadPoolExecutor(8) as threads:
        taken = [number for number in threads.map(take, range(60)) if number]
    assert sorted(taken) == [f"RE-2026-{position:06d}" for position in range(1, 41)]


def test_each_fiscal_year_has_its_own_series(database: Database) -> None:
    with database.transaction() as conn:
        first = invoices.next_number(conn, INDIA, utc("2026-03-01T00:00"))
        second = invoices.next_number(conn, INDIA, utc("2026-05-01T00:00"))
    assert (first, second) == ("INV-2526-000001", "INV-2627-000001")
