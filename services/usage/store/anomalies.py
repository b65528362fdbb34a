"""Anomalies that were found, and what is asked of usage to find and explain them."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

import sqlalchemy as sa

from services.usage.domain.anomaly import Anomaly, Finding, Kind, Part
from services.usage.domain.limit import Period
from services.usage.store import states
from services.usage.store.counted import COUNTED_NOW
from services.usage.tables import anomalies, customers, meters, period_totals

_MOST_EVENTS: Final = 20_000
_MOST_VALUES: Final = 2_000
_MOST_TRACES: Final = 5
_FIRST: Final = sa.text(
    """
    SELECT t.meter, (SELECT min(b.start_time) FROM bucket_totals AS b
                     WHERE b.customer = :customer AND b.meter = t.meter) AS first
    FROM (SELECT DISTINCT meter FROM period_totals WHERE customer = :customer) AS t
    """
)
# The newest events of a window stand for it where it has more.
_ATTRIBUTES: Final = sa.text(
    f"""
    WITH taken AS MATERIALIZED (
        SELECT e.attributes, CASE WHEN m.aggregation = 'SUM' THEN coalesce({states.QUANTITY}, 0) ELSE 1 END AS weight
        FROM events AS e JOIN meters AS m ON m.number = :meter AND {states.COUNTS}
        WHERE e.customer = :customer AND e.time >= :start AND e.time < :end
            AND {states.MATCHES} AND {COUNTED_NOW.format(event="e")}
        ORDER BY e.time DESC LIMIT {_MOST_EVENTS}
    )
    SELECT NULL AS name, NULL AS value, coalesce(sum(weight), 0) AS weight FROM taken
    UNION ALL
    (SELECT a.key, left(a.value, 256), sum(t.weight) FROM taken AS t, jsonb_each_text(t.attributes) AS a
     GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2 LIMIT {_MOST_VALUES})
    """  # noqa: S608 - the parts are constants
)
_TRACES: Final = sa.text(
    """
    SELECT trace_id FROM trace_samples
    WHERE customer = :customer AND meter = :meter AND time >= :start AND time < :end ORDER BY time DESC LIMIT :most
    """
)


@dataclass(frozen=True)
class Judged:
    """A customer to judge."""

    number: int
    id: str
    time_zone: str


@dataclass(frozen=True)
class StoredAnomaly:
    """An anomaly with its row."""

    id: str
    created_at: datetime
    anomaly: Anomaly


@dataclass(frozen=True)
class Weights:
    """How much of a window's usage came with which attributes, by name and value, and all of it."""

    whole: Decimal
    parts: dict[tuple[str, str], Decimal]


def with_usage(conn: sa.Connection, behind: int, limit: int) -> list[Judged]:
    """Return customers that have totals, by number."""
    table = customers.c
    used = sa.exists().where(period_totals.c.customer == table.number)
    query = sa.select(table.number, table.id, table.time_zone).where(used, table.number > behind)
    return [Judged(*row) for row in conn.execute(query.order_by(table.number).limit(limit))]


def first_usage(conn: sa.Connection, customer: int) -> dict[int, datetime]:
    """Return the quarter of an hour in which a customer first used each meter, by the meter's number."""
    found = conn.execute(_FIRST, {"customer": customer})
    return {row.meter: row.first for row in found if row.first is not None}


def attributes(conn: sa.Connection, customer: int, meter: int, window: Period) -> Weights:
    """Return how much of a window's usage came with which attributes; of its newest 20,000 events."""
    asked = {"customer": customer, "meter": meter, "start": window.start, "end": window.end}
    whole, parts = Decimal(0), {}
    for row in conn.execute(_ATTRIBUTES, asked):
        if row.name is None:
            whole = row.weight
        else:
            parts[row.name, row.value] = row.weight
    return Weights(whole, parts)


def traces(conn: sa.Connection, customer: int, meter: int, window: Period) -> tuple[str, ...]:
    """Return traces of a window's events that are kept, the newest first, at most five."""
    asked = {"customer": customer, "meter": meter, "start": window.start, "end": window.end, "most": _MOST_TRACES}
    # One trace may have sent the events of two days.
    return tuple(dict.fromkeys(row.trace_id.hex for row in conn.execute(_TRACES, asked)))


def lock(conn: sa.Connection, customer: int) -> None:
    """Have those who store anomalies of a customer at the same time wait for one another."""
    conn.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtext("anomalies"), customer % 2**31)))


def overlapping(conn: sa.Connection, customer: int, meter: int, kind: Kind, window: Period) -> str | None:
    """Return the id of the anomaly of a meter and direction whose newest window overlaps this one."""
    table = anomalies.c
    query = (
        sa.select(table.id)
        .where(
            table.customer == customer,
            table.meter == meter,
            table.kind == kind.value,
            table.end_time > window.start,
            table.start_time < window.end,
        )
        .order_by(table.end_time.desc())
        .limit(1)
    )
    return conn.execute(query).scalar_one_or_none()


def add(conn: sa.Connection, anomaly_id: str, customer: int, meter: int, found: Anomaly, now: datetime) -> None:
    """Insert an anomaly."""
    values = {"customer": customer, "id": anomaly_id, "meter": meter, "kind": found.finding.kind.value}
    conn.execute(sa.insert(anomalies).values(**values, **_window(found), created_at=now))


def renew(conn: sa.Connection, anomaly_id: str, found: Anomaly) -> None:
    """Write what a later window shows of an anomaly; an earlier one changes nothing."""
    table = anomalies.c
    mine = (table.id == anomaly_id, table.end_time <= found.window.end)
    conn.execute(sa.update(anomalies).where(*mine).values(**_window(found)))


def page(
    conn: sa.Connection, *, customer_id: str, meter_id: str, before: str | None, limit: int
) -> list[StoredAnomaly]:
    """Return anomalies, the newest first, found before the one with the id `before`."""
    query = (
        sa.select(anomalies, customers.c.id.label("customer_id"), meters.c.id.label("meter_id"))
        .join(customers, customers.c.number == anomalies.c.customer)
        .join(meters, meters.c.number == anomalies.c.meter)
        .order_by(anomalies.c.id.desc())
        .limit(limit)
    )
    if customer_id:
        query = query.where(customers.c.id == customer_id)
    if meter_id:
        query = query.where(meters.c.id == meter_id)
    if before is not None:
        query = query.where(anomalies.c.id < before)
    return [StoredAnomaly(row.id, row.created_at, _read(row)) for row in conn.execute(query)]


def _window(found: Anomaly) -> dict[str, Any]:
    finding = found.finding
    document = {
        "factor": str(found.factor),
        "seen": str(finding.seen),
        "expected": str(finding.expected),
        "weekly": [str(value) for value in finding.weekly],
        "rolling_median": None if finding.rolling_median is None else str(finding.rolling_median),
        "rolling_windows": finding.rolling_windows,
        "confidence": str(finding.confidence),
        "groups": [_part(part) for part in found.groups],
        "attributes": [_part(part) for part in found.attributes],
        "other_meters": list(found.other_meters),
        "trace_ids": list(found.trace_ids),
    }
    return {"start_time": found.window.start, "end_time": found.window.end, "finding": document}


def _part(part: Part) -> dict[str, str]:
    return {name: str(value) for name, value in asdict(part).items()}


def _read(row: Any) -> Anomaly:
    document = row.finding
    rolling = document["rolling_median"]
    finding = Finding(
        kind=Kind(row.kind),
        seen=Decimal(document["seen"]),
        expected=Decimal(document["expected"]),
        weekly=tuple(map(Decimal, document["weekly"])),
        rolling_median=None if rolling is None else Decimal(rolling),
        rolling_windows=document["rolling_windows"],
        confidence=Decimal(document["confidence"]),
    )
    return Anomaly(
        customer_id=row.customer_id,
        meter=row.meter_id,
        window=Period(row.start_time, row.end_time),
        factor=Decimal(document["factor"]),
        finding=finding,
        groups=_parts(document["groups"]),
        attributes=_parts(document["attributes"]),
        other_meters=tuple(document["other_meters"]),
        trace_ids=tuple(document["trace_ids"]),
    )


def _parts(documents: Sequence[dict[str, str]]) -> tuple[Part, ...]:
    return tuple(
        Part(each["name"], each["value"], Decimal(each["expected"]), Decimal(each["seen"]), Decimal(each["share"]))
        for each in documents
    )
