"""Reserving quota: strict, one at a time for a customer and meter, whatever the live counters say."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final, Generic, TypeVar

import sqlalchemy as sa
from google.protobuf.message import Message

from services.kit.db import Database
from services.kit.errors import InvalidArgument
from services.kit.idempotency import once
from services.kit.ids import new_id
from services.kit.money import plain
from services.usage.domain.event import identity_digest
from services.usage.domain.limit import standing
from services.usage.domain.reservation import Reservation, ReservationState
from services.usage.errors import (
    CustomerNotFound,
    LimitReached,
    ReservationEnded,
    ReservationNotFound,
    RollupBehind,
)
from services.usage.metrics import LimitMetrics
from services.usage.store import customers, reservations, totals
from services.usage.store.reservations import Stored
from services.usage.usecases.catalogue import Catalogue
from services.usage.usecases.positions import Positions

# How long changes of the customer's periods are waited for, all together.
_PATIENCE_SECONDS: Final = 2.0
_SHORTEST: Final = timedelta(seconds=1)
_ENDED: Final = {
    ReservationState.COMMITTED: (
        "RESERVATION_COMMITTED",
        "was committed with event {0.event_id!r} of source {0.event_source!r} and a quantity of {1}; it stays so",
    ),
    ReservationState.RELEASED: ("RESERVATION_RELEASED", "was released; reserve again"),
    ReservationState.EXPIRED: (
        "RESERVATION_EXPIRED",
        "expired at {2}; ingest what was used all the same, and reserve longer (ttl) the next time",
    ),
}

M = TypeVar("M", bound=Message)


@dataclass(frozen=True)
class Wanted:
    """Quota to set aside. `ttl` is None for those who do not say."""

    customer_id: str
    meter_id: str
    quantity: Decimal
    ttl: timedelta | None


@dataclass(frozen=True)
class Use:
    """What became of a reservation: the event that reports the use, and the quantity if it is less than was reserved."""

    customer_id: str
    reservation_id: str
    event_source: str
    event_id: str
    quantity: Decimal | None


@dataclass(frozen=True)
class Call(Generic[M]):
    """The request that acts once, and how its answer is encoded; see `services.kit.idempotency.once`."""

    request: Message
    request_id: str
    encode: Callable[[Reservation], M]
    response_type: type[M]


class _Unsettled(Exception):
    """The customer's periods have changed, and the rollup has still to set their totals."""

    def __init__(self, generation: int, tx: int) -> None:
        super().__init__()
        self.generation = generation
        self.tx = tx


class Reservations:
    """Sets quota aside and gives it back."""

    def __init__(
        self,
        database: Database,
        catalogue: Catalogue,
        positions: Positions,
        metrics: LimitMetrics,
        *,
        ttl: timedelta,
        longest: timedelta,
        patience_seconds: float = _PATIENCE_SECONDS,
    ) -> None:
        """Prepare.

        Args:
            database: of usage.
            catalogue: finds meters.
            positions: knows how far the rollup came.
            metrics: count what is refused.
            ttl: how long a reservation holds for those who do not say.
            longest: how long it may hold.
            patience_seconds: how long changes of the customer's periods are waited for, all together.
        """
        self._database = database
        self._catalogue = catalogue
        self._positions = positions
        self._metrics = metrics
        self._ttl = min(ttl, longest)
        self._longest = longest
        self._patience_seconds = patience_seconds

    def reserve(self, wanted: Wanted, call: Call[M]) -> M:
        """Set quota aside if the limit leaves it.

        Raises:
            CustomerNotFound, MeterNotFound: there is none of this id.
            InvalidArgument: the time is too short or too long.
            LimitReached: a hard limit does not leave so much.
            RollupBehind: the customer's periods have changed, and their totals are not set in time.
        """
        meter = self._catalogue.meter(wanted.meter_id).number
        ttl = self._checked(wanted.ttl)
        deadline: float | None = None
        while True:
            try:
                return self._reserve_once(wanted, meter, ttl, call)
            except _Unsettled as change:
                # The transaction is over: nothing is held while others go on, who may change the periods again.
                if deadline is None:
                    deadline = time.monotonic() + self._patience_seconds
                remaining = deadline - time.monotonic()
                if remaining <= 0 or not self._positions.wait(change.generation, change.tx + 1, remaining):
                    raise RollupBehind(self._patience_seconds) from None

    def commit(self, use: Use, call: Call[M]) -> M:
        """Have a reservation count until the totals hold its event.

        Raises:
            CustomerNotFound, ReservationNotFound: there is none of this id.
            ReservationEnded: it expired, was released, or was committed otherwise.
            InvalidArgument: more was used than was reserved.
        """
        with self._database.transaction() as conn:
            return _once(conn, "CommitReservation", call, lambda: self._commit(conn, use))

    def release(self, customer_id: str, reservation_id: str, call: Call[M]) -> M:
        """Give reserved quota back. One that holds no more is returned as it is.

        Raises:
            CustomerNotFound, ReservationNotFound: there is none of this id.
            ReservationEnded: it was committed.
        """
        with self._database.transaction() as conn:
            return _once(conn, "ReleaseReservation", call, lambda: _release(conn, customer_id, reservation_id))

    def _checked(self, ttl: timedelta | None) -> timedelta:
        if ttl is None:
            return self._ttl
        if not _SHORTEST <= ttl <= self._longest:
            longest = f"{self._longest.total_seconds():g}"
            raise InvalidArgument.at(
                "reservation.ttl", f"{ttl.total_seconds():g} s is outside 1 to {longest} s", reason="TTL_OUT_OF_RANGE"
            )
        return ttl

    def _reserve_once(self, wanted: Wanted, meter: int, ttl: timedelta, call: Call[M]) -> M:
        try:
            with self._database.transaction() as conn:
                return _once(conn, "ReserveQuota", call, lambda: self._reserve(conn, wanted, meter, ttl))
        except LimitReached:
            self._metrics.exceeded(wanted.customer_id, wanted.meter_id)
            raise

    def _reserve(self, conn: sa.Connection, wanted: Wanted, meter: int, ttl: timedelta) -> Reservation:
        number = _number(conn, wanted.customer_id)
        # Each statement sees what was committed before it, so what belongs together is held first. Of reservations: nobody
        # else reserves, commits or releases of this customer and meter. Of the customer: its periods do not change, nor are
        # its totals set for others, between the question which period it is and what was used in it; that would be nothing.
        # A change that has committed is seen, and waited for where its totals are not set.
        reservations.lock(conn, number, meter)
        customers.hold(conn, number)
        now = reservations.now(conn)
        customer = customers.find(conn, wanted.customer_id, now)
        if customer is None:
            raise CustomerNotFound(wanted.customer_id)
        change = customers.unsettled(conn, number)
        if change is not None:
            raise _Unsettled(*change)
        # Before the totals: a committed reservation whose event comes into them in between counts twice, and not nowhere.
        reserved = reservations.reserved(conn, number, meter)
        used = totals.of_period(conn, number, wanted.meter_id, customer.period.start)
        limit = customer.limits.get(wanted.meter_id)
        stands = standing(wanted.meter_id, used, reserved, limit, customer.period, has_plan=customer.has_plan)
        if not stands.allows(wanted.quantity):
            raise LimitReached(wanted.customer_id, plain(wanted.quantity), stands)
        made = Reservation(
            id=new_id("rsv"),
            customer_id=wanted.customer_id,
            meter=wanted.meter_id,
            quantity=wanted.quantity,
            state=ReservationState.OPEN,
            create_time=now,
            expire_time=now + ttl,
        )
        reservations.create(conn, number, meter, made)
        return made

    def _commit(self, conn: sa.Connection, use: Use) -> Reservation:
        number, found = _lock(conn, use.customer_id, use.reservation_id)
        reservation = found.reservation
        quantity = reservation.quantity if use.quantity is None else use.quantity
        if reservation.state is ReservationState.COMMITTED and reservation.names(
            use.event_source, use.event_id, quantity
        ):
            return reservation
        if reservation.state is not ReservationState.OPEN:
            raise _ended(reservation)
        if quantity > reservation.quantity:
            raise InvalidArgument.at(
                "quantity",
                f"{plain(quantity)} is more than the {plain(reservation.quantity)} that were reserved; "
                "commit at most that, or reserve the rest first",
                reason="MORE_THAN_RESERVED",
            )
        reservations.commit(
            conn,
            number,
            found,
            digest=identity_digest(use.event_source.encode(), use.event_id.encode()),
            source=use.event_source,
            event_id=use.event_id,
            quantity=quantity,
            until=self._counts_until(conn, use.customer_id),
        )
        return _found(conn, number, use.customer_id, use.reservation_id).reservation

    def _counts_until(self, conn: sa.Connection, customer_id: str) -> datetime:
        """Return until when a committed reservation counts at the longest: its event may come into the next period."""
        now = reservations.now(conn)
        customer = customers.find(conn, customer_id, now)
        if customer is None:
            raise CustomerNotFound(customer_id)
        return max(customer.period.end, now + self._longest)


def _release(conn: sa.Connection, customer_id: str, reservation_id: str) -> Reservation:
    number, found = _lock(conn, customer_id, reservation_id)
    if found.reservation.state is ReservationState.COMMITTED:
        raise _ended(found.reservation)
    if found.reservation.state is not ReservationState.OPEN:
        return found.reservation
    reservations.release(conn, number, found)
    return _found(conn, number, customer_id, reservation_id).reservation


def _lock(conn: sa.Connection, customer_id: str, reservation_id: str) -> tuple[int, Stored]:
    """Lock what a reservation is of; return the customer's number, and the reservation as it is then."""
    number = _number(conn, customer_id)
    meter = reservations.meter_of(conn, number, reservation_id)
    if meter is None:
        raise ReservationNotFound(customer_id, reservation_id)
    reservations.lock(conn, number, meter)
    return number, _found(conn, number, customer_id, reservation_id)


def _found(conn: sa.Connection, number: int, customer_id: str, reservation_id: str) -> Stored:
    found = reservations.find(conn, number, reservation_id)
    if found is None:
        raise ReservationNotFound(customer_id, reservation_id)
    return found


def _number(conn: sa.Connection, customer_id: str) -> int:
    number = customers.number(conn, customer_id)
    if number is None:
        raise CustomerNotFound(customer_id)
    return number


def _ended(reservation: Reservation) -> ReservationEnded:
    reason, why = _ENDED[reservation.state]
    told = why.format(reservation, plain(reservation.quantity), reservation.expire_time.isoformat())
    return ReservationEnded(reservation.id, reason, told)


def _once(conn: sa.Connection, method: str, call: Call[M], act: Callable[[], Reservation]) -> M:
    return once(
        conn,
        method=method,
        request_id=call.request_id,
        request=call.request,
        response_type=call.response_type,
        act=lambda: call.encode(act()),
    )
