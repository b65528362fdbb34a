"""Whether customers may use more: from the live counters, or from the database where those are away."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final, NamedTuple

from services.kit import paging
from services.kit.db import Database
from services.kit.errors import ServiceError
from services.usage.counters import Asked, Counters, Reading
from services.usage.domain.limit import Standing, standing
from services.usage.metrics import LimitMetrics
from services.usage.store import places, reservations, totals
from services.usage.store.customers import Customer
from services.usage.usecases.catalogue import Catalogue
from services.usage.usecases.combiner import Combiner

LIVE: Final = "live"
DATABASE: Final = "database"
_ZERO: Final = Decimal(0)
_MOST_TOGETHER: Final = 1_000


class Question(NamedTuple):
    """Whether a customer may use `quantity` more of a meter in the current period."""

    customer_id: str
    meter_id: str
    quantity: Decimal


class Check(NamedTuple):
    """An answer: every event acknowledged before `as_of` is in `standing.used`."""

    standing: Standing
    allowed: bool
    answered_from: str
    as_of: datetime


@dataclass(frozen=True)
class _Known:
    """A question whose customer and meter there are."""

    customer: Customer
    meter_id: str
    quantity: Decimal

    def answer(self, used: Decimal, reserved: Decimal, answered_from: str, as_of: datetime) -> Check:
        customer = self.customer
        limit = customer.limits.get(self.meter_id)
        stands = standing(self.meter_id, used, reserved, limit, customer.period, has_plan=customer.has_plan)
        return Check(stands, stands.allows(self.quantity), answered_from, as_of)


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
        # Checks that arrive while Redis is being asked share the next question: with 16 callers a check takes half the
        # processor time that it takes alone. One question at a time is enough; a second gains nothing.
        self._read: Combiner[Asked, Reading | None] = Combiner(
            self._read_all, places=1, most=_MOST_TOGETHER, worthwhile=_MOST_TOGETHER
        )

    def check(self, question: Question) -> Check:
        """Say whether more may be used. Changes nothing.

        Raises:
            CustomerNotFound, MeterNotFound: there is none of this id.
        """
        (answer,) = self._answers([self._known(question)])
        return answer

    def check_all(self, questions: Sequence[Question | ServiceError]) -> list[Check | ServiceError]:
        """Answer many questions at once, each for itself, in their order; what is an error already stays one."""
        asked = [self._known_or_error(question) for question in questions]
        answers = iter(self._answers([each for each in asked if isinstance(each, _Known)]))
        return [next(answers) if isinstance(each, _Known) else each for each in asked]

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
        checks = self._from_database([_Known(customer, name, _ZERO) for name in names[:size]])
        token = ""
        if len(names) > size:
            token = paging.encode_token([names[size - 1]], {"customer_id": customer_id})
        return checks, token

    def _known(self, question: Question) -> _Known:
        customer = self._catalogue.customer(question.customer_id)
        self._catalogue.meter(question.meter_id)
        return _Known(customer, question.meter_id, question.quantity)

    def _known_or_error(self, question: Question | ServiceError) -> "_Known | ServiceError":
        if isinstance(question, ServiceError):
            return question
        try:
            return self._known(question)
        except ServiceError as error:
            return error

    def _answers(self, asked: Sequence[_Known]) -> list[Check]:
        answers = self._from_counters(asked) or self._from_database(asked)
        for each, answer in zip(asked, answers, strict=True):
            self._metrics.answered(answer.answered_from)
            if not answer.allowed:
                self._metrics.exceeded(each.customer.id, each.meter_id)
        return answers

    def _from_counters(self, asked: Sequence[_Known]) -> list[Check]:
        """Return an answer to each, or none at all."""
        if not asked or not self._counters.worth_asking():
            return []
        readings = self._read(
            [Asked(each.customer.id, each.customer.month, each.meter_id, each.customer.period.start) for each in asked]
        )
        # All or none: they were read together.
        return [
            each.answer(reading.value, reading.reserved, LIVE, reading.as_of)
            for each, reading in zip(asked, readings, strict=True)
            if reading is not None
        ]

    def _read_all(self, asked: Sequence[Asked]) -> Sequence[Reading | None]:
        return self._counters.read(asked) or [None] * len(asked)

    def _from_database(self, asked: Sequence[_Known]) -> list[Check]:
        if not asked:
            return []
        with self._database.autocommit() as conn:
            # The place and what is reserved first: totals that are read after it can only be newer.
            as_of = places.rollup(conn).as_of
            reserved = reservations.reserved_of(conn, sorted({each.customer.number for each in asked}))
            used = totals.of_periods(
                conn, [(each.customer.number, each.meter_id, each.customer.period.start) for each in asked]
            )
        return [
            each.answer(amount, reserved.get((each.customer.number, each.meter_id), _ZERO), DATABASE, as_of)
            for each, amount in zip(asked, used, strict=True)
        ]
