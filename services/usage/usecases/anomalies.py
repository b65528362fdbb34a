"""The search for usage that is not what it usually is: by a job for all customers, and on demand for one."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from opentelemetry import trace

from services.kit import paging, telemetry
from services.kit.db import Database
from services.kit.exemplars import KEEP
from services.kit.ids import new_id
from services.kit.money import plain
from services.kit.outbox import Job, Outbox, Postpone
from services.usage.domain.anomaly import (
    LEAST_WEEKS,
    SIGNAL_CONFIDENCE,
    Anomaly,
    Finding,
    Kind,
    Part,
    Windows,
    judge,
    median,
    moved,
    windows,
)
from services.usage.domain.instant import EARLIEST, LATEST, from_us, quarter, to_us
from services.usage.domain.limit import Period
from services.usage.domain.meter import Aggregation
from services.usage.errors import CustomerNotFound
from services.usage.metrics import AnomalyMetrics
from services.usage.store import anomalies, customers, history, meters
from services.usage.store.anomalies import Judged, StoredAnomaly
from services.usage.store.meters import StoredMeter
from services.usage.usecases.positions import Positions
from services.usage.usecases.signals import RAISE_SIGNAL

FIND_ANOMALIES: Final = "find_usage_anomalies"
_SLICE: Final = 100
_WAIT_SECONDS: Final = 10.0
_AGAIN: Final = timedelta(seconds=30)
_ADDING: Final = {Aggregation.COUNT, Aggregation.SUM}

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Judgement:
    """By what a customer is judged on demand; None for what the settings say, and for now."""

    window: timedelta | None = None
    factor: Decimal | None = None
    end: datetime | None = None


@dataclass(frozen=True)
class _Behind:
    """Where a page of what is judged on demand goes on."""

    end: datetime
    meter: str


def _behind(end: str, meter: str) -> _Behind:
    instant = from_us(int(end))
    if quarter(instant) != instant or not EARLIEST <= instant < LATEST:
        raise ValueError(end)
    return _Behind(instant, meter)


class Anomalies:
    """Finds anomalies, stores them, raises their signals, and shows them."""

    def __init__(
        self,
        database: Database,
        outbox: Outbox,
        positions: Positions,
        metrics: AnomalyMetrics,
        clock: Callable[[], datetime],
        *,
        window: timedelta,
        factor: Decimal,
    ) -> None:
        """Prepare.

        Args:
            database: of usage.
            outbox: for signals.
            positions: how far the rollup came.
            metrics: what is counted.
            clock: now.
            window: the length of the windows that are compared.
            factor: beyond which a window is an anomaly, above 1.
        """
        self._database = database
        self._outbox = outbox
        self._positions = positions
        self._metrics = metrics
        self._clock = clock
        self._window = window
        self._factor = factor
        self._tracer = trace.get_tracer("services.usage")

    def find(self, job: Job) -> None:
        """Judge all customers, store what is found and raise a signal for each anomaly that was not known.

        Raises:
            Postpone: the rollup is behind: what is not counted yet would look like a fall.
        """
        if not self._positions.wait_for_all(_WAIT_SECONDS):
            raise Postpone(_AGAIN, "the rollup is behind")
        end = quarter(self._clock())
        behind = 0
        while True:
            with self._database.autocommit() as conn:
                found = anomalies.with_usage(conn, behind, _SLICE)
                known = {each.number: each for each in meters.every(conn)}
            for customer in found:
                for number, anomaly in self._judge(customer, known, end, self._window, self._factor):
                    self._store(customer.number, number, anomaly)
            if len(found) < _SLICE:
                return
            behind = found[-1].number
            job.renew()

    def now(
        self, customer_id: str, meter_id: str, by: Judgement, page_size: int, page_token: str
    ) -> tuple[list[Anomaly], str]:
        """Judge a customer now, by meter, and return the next page's token; nothing is stored.

        A page judges by the same end as the first one, whenever it is asked for.

        Raises:
            CustomerNotFound: there is none of this id.
            InvalidArgument: a bad page size or token.
        """
        filters = {
            "customer_id": customer_id,
            "meter": meter_id,
            "by": f"{by.window} {by.factor} {by.end}",
        }
        size = paging.page_size(page_size)
        behind = paging.position(page_token, filters, _behind)
        self._positions.wait_for_all(_WAIT_SECONDS)
        now = self._clock()
        with self._database.autocommit() as conn:
            customer = customers.find(conn, customer_id, now)
            if customer is None:
                raise CustomerNotFound(customer_id)
            known = {each.number: each for each in meters.every(conn)}
        end = behind.end if behind else by.end or quarter(now)
        judged = Judged(customer.number, customer.id, customer.time_zone)
        judgements = self._judge(judged, known, end, by.window or self._window, by.factor or self._factor)
        found = sorted((anomaly for _, anomaly in judgements), key=lambda anomaly: anomaly.meter)
        listed = [
            each for each in found if meter_id in {"", each.meter} and (behind is None or each.meter > behind.meter)
        ]
        if len(listed) <= size:
            return listed, ""
        shown = listed[:size]
        return shown, paging.encode_token([str(to_us(end)), shown[-1].meter], filters)

    def page(
        self, *, customer_id: str, meter_id: str, page_size: int, page_token: str
    ) -> tuple[list[StoredAnomaly], str]:
        """Return anomalies, the newest first, and the next page's token.

        Raises:
            InvalidArgument: a bad page size or token.
        """
        filters = {"customer_id": customer_id, "meter": meter_id}
        size = paging.page_size(page_size)
        before = paging.position(page_token, filters, str)
        with self._database.autocommit() as conn:
            found = anomalies.page(conn, customer_id=customer_id, meter_id=meter_id, before=before, limit=size + 1)
        return found[:size], paging.encode_token([found[size - 1].id], filters) if len(found) > size else ""

    def _judge(
        self, customer: Judged, known: Mapping[int, StoredMeter], end: datetime, window: timedelta, factor: Decimal
    ) -> list[tuple[int, Anomaly]]:
        """Return a customer's anomalies with the numbers of their meters."""
        laid = windows(end, window, ZoneInfo(customer.time_zone))
        with self._database.autocommit() as conn:
            found = [
                (meter, Anomaly(customer.id, meter.meter.id, laid.window, factor, finding))
                for meter, finding in self._findings(conn, customer, known, laid, factor)
            ]
            explained = [
                (meter.number, self._explained(conn, customer, meter, laid, anomaly)) for meter, anomaly in found
            ]
        names = [anomaly.meter for _, anomaly in explained]
        return [
            (number, replace(anomaly, other_meters=tuple(sorted(set(names) - {anomaly.meter}))))
            for number, anomaly in explained
        ]

    def _findings(
        self,
        conn: sa.Connection,
        customer: Judged,
        known: Mapping[int, StoredMeter],
        laid: Windows,
        factor: Decimal,
    ) -> Iterator[tuple[StoredMeter, Finding]]:
        judged = 0
        for number, first in sorted(anomalies.first_usage(conn, customer.number).items()):
            weekly = [period for period in laid.weekly if period.start >= first]
            if number not in known or len(weekly) < LEAST_WEEKS:
                continue
            judged += 1
            rolling = [period for period in laid.rolling if period.start >= first]
            *before, seen = history.values(conn, customer.number, known[number], _cuts(laid, len(rolling)))
            past = [
                history.values(conn, customer.number, known[number], (period.start, period.end))[0] for period in weekly
            ]
            finding = judge(seen, past, before[::-1], factor)
            if finding is not None:
                yield known[number], finding
        self._metrics.judged(judged)

    def _explained(
        self, conn: sa.Connection, customer: Judged, meter: StoredMeter, laid: Windows, anomaly: Anomaly
    ) -> Anomaly:
        weeks = laid.weekly[: len(anomaly.finding.weekly)]
        return replace(
            anomaly,
            groups=_groups(conn, customer.number, meter, laid.window, weeks, anomaly.finding),
            attributes=_attributes(conn, customer.number, meter, laid, anomaly.finding.kind),
            trace_ids=anomalies.traces(conn, customer.number, meter.number, laid.window),
        )

    def _store(self, customer: int, meter: int, found: Anomaly) -> None:
        kind = found.finding.kind
        with (
            telemetry.customer(found.customer_id),
            self._tracer.start_as_current_span(f"anomaly {found.meter}") as span,
            self._database.transaction() as conn,
        ):
            anomalies.lock(conn, customer)
            known = anomalies.overlapping(conn, customer, meter, kind, found.window)
            if known is not None:
                anomalies.renew(conn, known, found)
                return
            span.set_attribute(KEEP, value=True)
            anomaly_id = new_id("ano")
            anomalies.add(conn, anomaly_id, customer, meter, found, self._clock())
            if found.finding.confidence >= SIGNAL_CONFIDENCE:
                self._outbox.put(conn, job=RAISE_SIGNAL, payload={"request": signal(anomaly_id, found)})
        self._metrics.found(kind.value.lower())
        _log.warning(
            "usage is not what it usually is",
            extra={
                "customer_id": found.customer_id,
                "meter": found.meter,
                "anomaly_id": anomaly_id,
                "kind": kind.value,
            },
        )


def signal(anomaly_id: str, found: Anomaly) -> dict[str, Any]:
    """Return the RaiseSignalRequest as JSON."""
    finding = found.finding
    does = "falls below" if finding.kind is Kind.DROP else "is above"
    start = found.window.start.isoformat().replace("+00:00", "Z")
    return {
        "type": "anomaly",
        "severity": "SEVERITY_WARNING",
        "title": f"{found.meter} {does} what is expected: {plain(finding.ratio)} times",
        "message": f"Customer {found.customer_id}: {found.explanation}",
        "data": {
            "anomaly_id": anomaly_id,
            "meter": found.meter,
            "kind": finding.kind.value,
            "expected": plain(finding.expected),
            "seen": plain(finding.seen),
            "factor": plain(found.factor),
            "start_time": start,
            "end_time": found.window.end.isoformat().replace("+00:00", "Z"),
            "confidence": plain(finding.confidence),
            "moved": [_told(part) for part in (*found.groups, *found.attributes)],
            "other_meters": list(found.other_meters),
            "trace_ids": list(found.trace_ids),
        },
        "customer_id": found.customer_id,
        "fingerprint": f"anomaly:{found.customer_id}:{found.meter}:{finding.kind.value}:{start}",
        "labels": {"meter": found.meter, "kind": finding.kind.value.lower()},
        "service": "usage",
    }


def _told(part: Part) -> dict[str, str]:
    return {
        "name": part.name,
        "value": part.value,
        "expected": plain(part.expected),
        "seen": plain(part.seen),
        "share_percent": plain(part.share),
    }


def _cuts(laid: Windows, rolling: int) -> list[datetime]:
    """Return where the windows begin, the oldest of the last so many first, and where the judged one ends."""
    return [*(period.start for period in laid.rolling[:rolling][::-1]), laid.window.start, laid.window.end]


def _groups(
    conn: sa.Connection, customer: int, meter: StoredMeter, window: Period, weeks: Sequence[Period], finding: Finding
) -> tuple[Part, ...]:
    """Return the values of the meter's group-by attributes that moved most; only what adds up has parts."""
    if meter.meter.aggregation not in _ADDING:
        return ()
    seen: dict[tuple[str, str], Decimal] = {}
    expected: dict[tuple[str, str], Decimal] = {}
    for name in meter.meter.group_by:
        now, *past = (_by_value(conn, customer, meter, period, name) for period in (window, *weeks))
        for value in set(now).union(*past):
            seen[name, value] = now.get(value, Decimal(0))
            expected[name, value] = median([week.get(value, Decimal(0)) for week in past])
    return tuple(moved(seen, expected, finding.seen - finding.expected))


def _by_value(conn: sa.Connection, customer: int, meter: StoredMeter, period: Period, name: str) -> dict[str, Decimal]:
    found = history.by_group(conn, customer, meter, (period.start, period.end), (name,))
    return {group.get(name, ""): value for group, value in found[0]} if found else {}


def _attributes(conn: sa.Connection, customer: int, meter: StoredMeter, laid: Windows, kind: Kind) -> tuple[Part, ...]:
    seen = anomalies.attributes(conn, customer, meter.number, laid.window)
    past = anomalies.attributes(conn, customer, meter.number, laid.weekly[0])
    whole = seen.whole - past.whole
    if (whole > 0) != (kind is Kind.SPIKE):
        # The week before was no usual one itself: it explains nothing.
        return ()
    return tuple(moved(seen.parts, past.parts, whole))
