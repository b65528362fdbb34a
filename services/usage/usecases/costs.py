"""What customers' days cost: kept up with usage by a job that asks billing in bulk, and on demand for a report."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from hashlib import blake2b
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

import sqlalchemy as sa

from services.kit import paging, telemetry
from services.kit.db import Database
from services.kit.money import Money, plain
from services.kit.outbox import Job, Outbox, Postpone
from services.usage.clients import Billing, BillingAway
from services.usage.domain.calendar import day_of, days
from services.usage.domain.cost import SPIKE_FACTOR, Running, Spike, by_day, spike
from services.usage.domain.instant import EARLIEST
from services.usage.domain.meter import Aggregation
from services.usage.domain.report import EXACT
from services.usage.metrics import CostMetrics
from services.usage.store import costs, history, meters, places
from services.usage.store.costs import CustomerPeriod, Key, Listed, Place, Priced
from services.usage.store.meters import StoredMeter
from services.usage.usecases.signals import RAISE_SIGNAL

PRICE_USAGE: Final = "price_usage"
# Periods that billing is asked of in one call.
_SLICE: Final = 100
_AGAIN: Final = timedelta(seconds=30)
_DIGEST_BYTES: Final = 16
# Their running totals are the sums of the days: the database adds them up.
_ADDING: Final = {Aggregation.COUNT, Aggregation.SUM}

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Used:
    """A period and what it used, up to `as_of`."""

    of: CustomerPeriod
    usage: Mapping[str, Running]
    digest: UUID
    as_of: datetime


class Costs:
    """Prices days and shows what they cost."""

    def __init__(
        self,
        database: Database,
        outbox: Outbox,
        billing: Billing,
        metrics: CostMetrics,
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._outbox = outbox
        self._clock = clock
        self._billing = billing
        self._metrics = metrics

    def keep_up(self, job: Job) -> None:
        """Price what moved since the last time. What was priced stays when billing is away.

        Raises:
            Postpone: billing is away.
        """
        with self._database.autocommit() as conn:
            above, upto = costs.place(conn), places.rollup(conn)
            listed = {each.number: each for each in meters.every(conn)}
        behind, count = (0, EARLIEST), 0
        while True:
            with self._database.autocommit() as conn:
                found = costs.moved(conn, above, behind, _SLICE)
            try:
                count += self.refresh(found, listed)
            except BillingAway as away:
                self._metrics.failed()
                raise Postpone(_AGAIN, away.message) from away
            if len(found) < _SLICE:
                break
            behind = (found[-1].customer, found[-1].period.start)
            job.renew()
        with self._database.transaction() as conn:
            job.fence(conn)
            costs.move(conn, Place(upto.generation, upto.last))
        if count:
            _log.info("priced usage", extra={"periods": count})

    def refresh(self, wanted: Sequence[CustomerPeriod], listed: Mapping[int, StoredMeter] | None = None) -> int:
        """Price periods whose usage moved since they were, in one call to billing; return how many.

        Raises:
            BillingAway: it gives no answer; what was priced stays as it was.
        """
        moved = [used for used in self._used(wanted, listed) if not self._holds(used)]
        if not moved:
            return 0
        answers = self._billing.price([(used.of.customer_id, used.of.period, used.usage) for used in moved])
        for used, price in zip(moved, answers, strict=True):
            period = used.of.period
            cut = days(period.start, period.end, ZoneInfo(used.of.time_zone))
            priced = Priced(used.of, price, by_day(price, used.usage, cut), used.digest, used.as_of)
            with self._database.transaction() as conn:
                # Two periods are judged together: of those who price one each, the later has to see both.
                costs.lock(conn, used.of.customer)
                costs.store(conn, priced)
                self._judge(conn, used.of)
        self._metrics.priced(len(moved))
        return len(moved)

    def page(
        self, *, customer_id: str, first: date | None, behind: date | None, page_size: int, page_token: str
    ) -> tuple[list[Listed], str]:
        """Return what days cost, by customer and day, and the next page's token.

        Raises:
            InvalidArgument: a bad page size or token.
        """
        filters = {"customer_id": customer_id, "first": str(first), "behind": str(behind)}
        size = paging.page_size(page_size)
        after = paging.position(page_token, filters, _key)
        with self._database.autocommit() as conn:
            found = costs.page(conn, customer_id=customer_id, first=first, behind=behind, after=after, limit=size + 1)
        shown = found[:size]
        if len(found) <= size:
            return shown, ""
        last = shown[-1].key
        token = [last.customer_id, last.day.isoformat(), last.period_start.astimezone(UTC).isoformat()]
        return shown, paging.encode_token(token, filters)

    def _used(self, wanted: Sequence[CustomerPeriod], listed: Mapping[int, StoredMeter] | None) -> list[_Used]:
        used = []
        with self._database.autocommit() as conn:
            known = listed or {each.number: each for each in meters.every(conn)}
            # The place first: the totals that are read after it can only be newer.
            as_of = places.rollup(conn).as_of
            for of in wanted:
                usage = _usage(conn, of, known)
                used.append(_Used(of, usage, _digest(of, usage), as_of))
        return used

    def _judge(self, conn: sa.Connection, priced: CustomerPeriod) -> None:
        """Raise a signal, once a period, if an open one costs far more than the period before did by then.

        Judged is the period that was just priced and the one behind it: either may be priced first.
        """
        now = self._clock()
        found = costs.headers(conn, priced.customer, [priced.period.start, priced.period.end]).values()
        judged = next((each for each in found if each.period.start <= now < each.period.end), None)
        earlier = costs.before(conn, priced.customer, judged.period.start) if judged else None
        if judged is None or earlier is None or earlier.currency != judged.currency:
            return
        of = replace(priced, period=judged.period)
        cost = sum(costs.usage_by_day(conn, of.customer, of.period.start).values(), Decimal(0))
        cut = days(earlier.period.start, earlier.period.end, ZoneInfo(of.time_zone))
        spiked = spike(cost, of.period, costs.usage_by_day(conn, of.customer, earlier.period.start), cut, now)
        if spiked is not None and costs.tell_spike(conn, of.customer, of.period.start):
            with telemetry.customer(of.customer_id):
                payload = {"request": signal(of, judged.currency, spiked)}
                self._outbox.put(conn, job=RAISE_SIGNAL, payload=payload)

    def _holds(self, used: _Used) -> bool:
        """Say whether the stored price is of the same usage, and store that it still holds."""
        of = used.of
        with self._database.transaction() as conn:
            header = costs.headers(conn, of.customer, [of.period.start]).get(of.period.start)
            if header is None or header.digest != used.digest:
                return False
            costs.confirm(conn, of.customer, of.period.start, used.as_of)
        return True


def signal(of: CustomerPeriod, currency: str, found: Spike) -> dict[str, Any]:
    """Return the RaiseSignalRequest as JSON."""
    start = of.period.start.astimezone(UTC).isoformat().replace("+00:00", "Z")
    cost, before = (Money(amount, currency).rounded() for amount in (found.cost, found.before))
    return {
        "type": "cost_spike",
        "severity": "SEVERITY_WARNING",
        "title": f"Usage costs more than {plain(SPIKE_FACTOR)} times as much as in the period before",
        "message": f"The usage of customer {of.customer_id} in the period that began {start} costs {cost} so far; in the "
        f"period before it cost {before} by then ({found.elapsed_percent} % of the period).",
        "data": {
            "cost": plain(cost.amount),
            "before": plain(before.amount),
            "currency": currency,
            "elapsed_percent": found.elapsed_percent,
            "period_start": start,
        },
        "customer_id": of.customer_id,
        "fingerprint": f"cost_spike:{of.customer_id}:{start}",
        "labels": {"currency": currency},
        "service": "usage",
    }


def _usage(conn: sa.Connection, of: CustomerPeriod, known: Mapping[int, StoredMeter]) -> dict[str, Running]:
    usage = {}
    for number in costs.meters_used(conn, of.customer):
        if number in known:
            running = _running(conn, of, known[number])
            if running.dates:
                usage[known[number].meter.id] = running
    return dict(sorted(usage.items()))


def _running(conn: sa.Connection, of: CustomerPeriod, meter: StoredMeter) -> Running:
    """Return what a meter had used at the end of each day that moved it."""
    cut = days(of.period.start, of.period.end, ZoneInfo(of.time_zone))
    at_end: dict[int, Decimal] = {}
    if meter.meter.aggregation in _ADDING:
        total = Decimal(0)
        used = history.used(conn, of.customer, meter, [*(day.start for day in cut), cut[-1].end])
        for place, value in sorted(used.items()):
            total = EXACT.add(total, value)
            at_end[place] = total
    else:
        found = history.read(conn, of.customer, meter, of.period)
        at_end = {day_of(cut, instant): value for instant, value in found.running(of.period)}
    return Running(tuple(cut[place].date for place in at_end), tuple(at_end.values()))


def _digest(of: CustomerPeriod, usage: Mapping[str, Running]) -> UUID:
    """Digest what a price depends on: the usage, and the revision of what billing told of the customer."""
    parts = [str(of.revision), of.time_zone, of.period.end.astimezone(UTC).isoformat()]
    for meter, running in usage.items():
        parts += [meter, *map(str, running.dates), *map(plain, running.quantities)]
    return UUID(bytes=blake2b("\0".join(parts).encode(), digest_size=_DIGEST_BYTES).digest())


def _key(customer_id: str, day: str, period_start: str) -> Key:
    start = datetime.fromisoformat(period_start)
    if start.tzinfo is None:
        raise ValueError(period_start)
    return Key(customer_id, date.fromisoformat(day), start)
