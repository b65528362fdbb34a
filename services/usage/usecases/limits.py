"""Whether a customer may use more: from the live counters, or from the database where those are away."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final
from zoneinfo import ZoneInfo

from services.kit import paging
from services.kit.db import Database
from services.usage.counters import Counters
from services.usage.domain.limit import Standing, standing
from services.usage.metrics import LimitMetrics
from services.usage.store import places, totals
from services.usage.store.customers import Customer
from services.usage.usecases.catalogue import Catalogue

LIVE: Final = "live"
DATABASE: Final = "database"


@dataclass(frozen=True)
class Check:
    """An answer: every event acknowledged before `as_of` is in `standing.used`."""

    standing: Standing
    allowed: bool
    answered_from: str
    as_of: datetime


class Limits:
    """Answers limit checks."""

    def __init__(
        self,
        database: Database,
        catalogue: Catalogue,
        counters: Counters,
        metrics: LimitMetrics,
    ) -> None:
        self._database = database
        self._catalogue = catalogue
        self._counters = counters
        self._metrics = metrics

    def check(self, customer_id: str, meter_id: str, quantity: Decimal) -> Check:
        """Say whether a customer may use `quantity` more of a meter in the current period. Changes nothing.

        Raises:
            CustomerNotFound, MeterNotFound: there is none of this id.
        """
        customer = self._catalogue.customer(customer_id)
        self._catalogue.meter(meter_id)
        check = self._from_counters(customer, meter_id, quantity) or self._from_database(customer, meter_id, quantity)
        self._metrics.answered(check.answered_from)
        limit = check.standing.limit
        if limit is not None and check.standing.used + quantity > limit:
            self._metrics.exceeded(customer_id, meter_id)
        return check

    def page(self, customer_id: str, page_size: int, page_token: str) -> tuple[list[Check], str]:
        """Return how a customer stands with each limited meter, by meter, and the token of the next page.

        Raises:
            CustomerNotFound: there is none of this id.
            InvalidArgument: a bad page size or token.
        """
        size = paging.page_size(page_size)
        behind = paging.position(page_token, {"customer_id": customer_id}, str) or ""
        customer = self._catalogue.customer(customer_id)
        names = sorted(name for name in customer.limits if name > behind)
        checks = [self._from_database(customer, name, Decimal(0)) for name in names[:size]]
        token = ""
        if len(names) > size:
            token = paging.encode_token([names[size - 1]], {"customer_id": customer_id})
        return checks, token

    def _from_counters(self, customer: Customer, meter_id: str, quantity: Decimal) -> Check | None:
        reading = self._counters.read(customer.id, _month(customer), meter_id, customer.period.start)
        if reading is None:
            return None
        return _check(customer, meter_id, reading.value, quantity, LIVE, reading.as_of)

    def _from_database(self, customer: Customer, meter_id: str, quantity: Decimal) -> Check:
        with self._database.autocommit() as conn:
            # The place first: totals that are read after it can only be newer.
            as_of = places.rollup(conn).as_of
            used = totals.of_period(conn, customer.number, meter_id, customer.period.start)
        return _check(customer, meter_id, used, quantity, DATABASE, as_of)


def _check(
    customer: Customer, meter_id: str, used: Decimal, quantity: Decimal, answered_from: str, as_of: datetime
) -> Check:
    limit = customer.limits.get(meter_id)
    stands = standing(meter_id, used, limit, customer.period, has_plan=customer.has_plan)
    return Check(stands, stands.allows(quantity), answered_from, as_of)


def _month(customer: Customer) -> str:
    return customer.period.start.astimezone(ZoneInfo(customer.time_zone)).strftime("%Y%m")
