"""Closing a customer's period for billing, so that every event is billed exactly once.

1. The seal is committed.
2. A transaction of its own takes an id E and commits at once. Every writer with a later id sees the seal, and its
   events below the seal's end carry it as late usage; every writer with an earlier id ends at some time.
3. The rollup comes beyond E, while nothing is held: all of those earlier writers have ended and are in the totals.
4. A new statement copies the totals.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeVar

import sqlalchemy as sa
from google.protobuf.message import Message

from services.kit import paging
from services.kit.db import Database
from services.kit.errors import InvalidArgument
from services.kit.idempotency import answered, once
from services.usage.domain.instant import EARLIEST, LATEST, from_us, quarter, to_us
from services.usage.errors import CustomerNotFound, RollupBehind
from services.usage.store import customers, places, quarantine, seals
from services.usage.store.seals import Late, Seal, Totals
from services.usage.usecases.positions import Positions

_METHOD: Final = "SealUsage"
_WAIT_SECONDS: Final = 8.0

M = TypeVar("M", bound=Message)


@dataclass(frozen=True)
class Sealed:
    """A closed period: what is in it, what came late for earlier ones, and how many events are held."""

    id: str
    totals: Totals
    late: list[Late]
    quarantined: int


class Seals:
    """Closes periods."""

    def __init__(self, database: Database, positions: Positions) -> None:
        self._database = database
        self._positions = positions

    def seal(
        self,
        customer_id: str,
        start: datetime,
        end: datetime,
        *,
        request: Message,
        request_id: str,
        encode: Callable[[Sealed], M],
        response_type: type[M],
    ) -> M:
        """Seal a customer's usage before `end` and return it. Idempotent by (customer, end).

        Raises:
            InvalidArgument: `start` is not before `end`.
            CustomerNotFound: there is no such customer.
            RequestIdReused: the id came with another request before; nothing is sealed.
            RollupBehind: the rollup did not come far enough in time; the same request goes on where this one stopped.
        """
        if start >= end:
            raise InvalidArgument.at("end_time", "is not after start_time")
        with self._database.autocommit() as conn:
            stored = answered(conn, method=_METHOD, request_id=request_id, request=request, response_type=response_type)
        if stored is not None:
            return stored
        seal = self._create(customer_id, start, end)
        if not seal.sealed:
            with self._database.transaction() as conn:
                place = places.writer(conn)
                generation = places.rollup(conn).generation
            if not self._positions.wait(generation, place + 1, _WAIT_SECONDS):
                raise RollupBehind(_WAIT_SECONDS)
        with self._database.transaction() as conn:
            return once(
                conn,
                method=_METHOD,
                request_id=request_id,
                request=request,
                response_type=response_type,
                act=lambda: encode(_freeze(conn, seal)),
            )

    def late(self, customer_id: str, page_size: int, page_token: str) -> tuple[list[Late], str]:
        """Return a page of what came late for a customer's seals, by their ends, and the token of the next.

        Raises:
            CustomerNotFound: there is no such customer.
            InvalidArgument: a bad page size or token.
        """
        size = paging.page_size(page_size)
        behind = paging.position(page_token, {"customer_id": customer_id}, _instant) or EARLIEST
        with self._database.autocommit() as conn:
            number = customers.number(conn, customer_id)
            if number is None:
                raise CustomerNotFound(customer_id)
            found = seals.late(conn, number, LATEST, behind=behind, most=size + 1)
        token = ""
        if len(found) > size:
            token = paging.encode_token([str(to_us(found[size - 1].period_end))], {"customer_id": customer_id})
        return found[:size], token

    def _create(self, customer_id: str, start: datetime, end: datetime) -> Seal:
        with self._database.transaction() as conn:
            tx = places.writer(conn)
            number = customers.lock(conn, customer_id)
            if number is None:
                raise CustomerNotFound(customer_id)
            seal = seals.create(conn, number, start, end)
            if quarter(end) != end:
                customers.add_edges(conn, number, [(quarter(end), end)], tx)
            return seal


def _instant(text: str) -> datetime:
    return from_us(int(text))


def _freeze(conn: sa.Connection, seal: Seal) -> Sealed:
    seals.freeze(conn, seal)
    return Sealed(
        id=seal.id,
        totals=seals.totals(conn, seal),
        late=seals.late(conn, seal.customer, seal.end),
        quarantined=quarantine.count_of_customer(conn, seal.customer, seal.end),
    )
