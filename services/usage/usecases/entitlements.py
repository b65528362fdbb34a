"""What billing tells of customers: the highest revision wins."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final, TypeVar

import sqlalchemy as sa
from google.protobuf.message import Message

from services.kit import telemetry
from services.kit.db import Database
from services.kit.idempotency import once
from services.usage.domain.instant import EARLIEST, quarter
from services.usage.domain.limit import Period
from services.usage.errors import CustomerKeyTaken
from services.usage.store import customers, places
from services.usage.store.customers import Entitlements
from services.usage.usecases.notifier import Notifier

_METHOD: Final = "PutEntitlements"

M = TypeVar("M", bound=Message)


class EntitlementBook:
    """Takes entitlements in."""

    def __init__(self, database: Database, notifier: Notifier, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._notifier = notifier
        self._clock = clock

    def put(
        self,
        wanted: Entitlements,
        *,
        request: Message,
        request_id: str,
        encode: Callable[[int], M],
        response_type: type[M],
    ) -> M:
        """Put entitlements in force unless a higher revision is; return the revision in force.

        Raises:
            CustomerKeyTaken: a key belongs to another customer.
        """
        with self._database.transaction() as conn:
            tx = places.writer(conn)
            response = once(
                conn,
                method=_METHOD,
                request_id=request_id,
                request=request,
                response_type=response_type,
                act=lambda: encode(self._put(conn, wanted, tx)),
            )
        self._notifier.notice()
        return response

    def _put(self, conn: sa.Connection, wanted: Entitlements, tx: int) -> int:
        number, revision = customers.lock_or_create(conn, wanted.customer_id)
        if wanted.revision <= revision:
            return revision
        taken = customers.replace_keys(conn, number, wanted.keys)
        if taken is not None:
            raise CustomerKeyTaken(taken)
        recount_from = self._change_periods(conn, number, wanted)
        edges = [(quarter(edge), edge) for period in wanted.periods for edge in (period.start, period.end)]
        customers.add_edges(conn, number, [edge for edge in edges if edge[0] != edge[1]], tx)
        customers.add_change(conn, number, tx=tx, recount_from=recount_from, context=telemetry.inject())
        return wanted.revision

    def _change_periods(self, conn: sa.Connection, number: int, wanted: Entitlements) -> datetime | None:
        """Write the customer, its limits and periods; return from where on its periods differ, None if they don't."""
        before = customers.list_periods(conn, number)
        after = _joined(before, wanted.periods, self._clock())
        zone = customers.time_zone(conn, number)
        first = _first_difference(before, after)
        if zone != wanted.time_zone:
            customers.check_time_zone(conn, wanted.time_zone)
            # Months between billing periods are of the other zone now.
            first = EARLIEST
        if first is None:
            customers.update(conn, number, wanted)
            return None
        began = customers.period_start(conn, number, first)
        customers.update(conn, number, wanted)
        customers.replace_periods(conn, number, after)
        return min(began, customers.period_start(conn, number, first))


def _joined(before: Sequence[Period], wanted: Sequence[Period], now: datetime) -> list[Period]:
    """Return the wanted periods behind what is past: those told of earlier, cut where the first wanted one begins."""
    start = wanted[0].start if wanted else now
    past = [period for period in before if period.end <= start]
    cut = [Period(period.start, start) for period in before if wanted and period.start < start < period.end]
    return [*past, *cut, *wanted]


def _first_difference(before: Sequence[Period], after: Sequence[Period]) -> datetime | None:
    different = set(before) ^ set(after)
    return min((period.start for period in different), default=None)
