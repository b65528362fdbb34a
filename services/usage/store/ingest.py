"""The one transaction that takes events in (docs/decisions/0007).

The order of the statements is the protocol:

1. `pg_current_xact_id()`: the transaction has an id before it reads anything, even if it will insert no key.
2. What is held goes to the quarantine.
3. All identity keys in one statement, sorted by (customer, digest): only an identical identity waits for another
   transaction, and no two wait for each other. Or, where all are expected to be new, by COPY, which costs a third less
   but gives the whole transaction up at the first that is there. COPY goes through the keys partition by partition: two
   that hold the same new events may then wait for each other, and PostgreSQL ends one of them after a second.
4. In later statements, which see what others committed meanwhile: the contents of keys that were there, and the seals.
   A seal committed before this transaction got its id is seen here for certain.
5. COPY of the accepted events, each with the transaction's id.
"""

import struct
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple, cast

import psycopg
import sqlalchemy as sa

from services.usage.domain.instant import from_us, to_us
from services.usage.domain.verdict import ACCEPTED, CONFLICT, DUPLICATE, TOO_OLD, Verdict, quarantined
from services.usage.errors import DatabaseRestored
from services.usage.store import wire
from services.usage.store.placed import Placed
from services.usage.store.quarantine import hold

_BEGIN: Final = """
SELECT pg_current_xact_id()::text::bigint, g.number, f.time,
       g.system_identifier = (SELECT system_identifier FROM pg_control_system())
FROM (SELECT number, system_identifier FROM generations ORDER BY number DESC LIMIT 1) AS g,
     (SELECT time FROM floors WHERE name = 'accepted_from') AS f
"""
_INSERT_KEYS: Final = """
INSERT INTO event_keys (customer, digest, content, time)
SELECT * FROM unnest(%b::bigint[], %b::uuid[], %b::uuid[], %b::timestamptz[])
ON CONFLICT DO NOTHING RETURNING customer, digest
"""
_COPY_KEYS: Final = "COPY event_keys (customer, digest, content, time) FROM STDIN (FORMAT binary)"
_CONTENTS: Final = """
SELECT k.customer, k.digest, k.content
FROM unnest(%b::bigint[], %b::uuid[]) AS asked (customer, digest)
JOIN event_keys AS k ON k.customer = asked.customer AND k.digest = asked.digest
"""
_LAST_SEAL: Final = "SELECT max(end_time) FROM seals"
_SEALS: Final = """
SELECT s.customer, s.end_time, s.number
FROM seals AS s
WHERE s.customer = ANY(%b::bigint[]) AND s.end_time > %b
ORDER BY s.customer, s.end_time
"""
_COPY: Final = """
COPY events (customer, time, digest, tx, seal, span_id, trace_id, received, generation, sampled,
             id, source, type, quantities, attributes)
FROM STDIN (FORMAT binary)
"""
_FIELDS: Final = 15
_HEAD: Final = struct.Struct(">hi8siqi16s")
_KEY_WIDTH: Final = 8
_KEY: Final = struct.Struct(">hi8si16si16siq")
_KEY_FIELDS: Final = 4

# By COPY: a key is stored, or is being stored by a transaction that waits for one of ours.
NOT_NEW: Final = (psycopg.errors.UniqueViolation, psycopg.errors.DeadlockDetected)


class _Place(NamedTuple):
    """Where this transaction stands: its id, the generation, and the oldest time that is accepted."""

    tx: int
    generation: int
    floor: int


def write(
    conn: psycopg.Connection[Any], batch: Sequence[Placed], now: datetime, *, expect_new: bool = False
) -> list[Verdict]:
    """Store a batch in the transaction that `conn` has just begun, and return a verdict for each event.

    Args:
        conn: in a transaction (READ COMMITTED) that wrote nothing so far, or only has its id (see places.writer).
        batch: in the order of the request: of two with one identity the first counts.
        now: the time of receipt.
        expect_new: none of them is stored yet, in all likelihood.

    Raises:
        DatabaseRestored: transaction ids are not to be relied on until the generation was raised.
        psycopg.Error: roll back. After one of NOT_NEW, write them once more without `expect_new`.
    """
    wire.prepare(conn)
    place = _begin(conn)
    held = [placed for placed in batch if not placed.customer]
    if held:
        hold(conn, held, now)
    known = [placed for placed in batch if placed.customer] if held else batch
    # Of two with one identity the first stays.
    keys = [placed.customer + placed.event.identity for placed in known]
    firsts = dict(zip(reversed(keys), reversed(known), strict=True))
    fresh = _insert_keys(conn, firsts, place.floor, expect_new=expect_new)
    if fresh:
        _append(conn, [firsts[key] for key in fresh], place, now)
    if len(fresh) == len(batch):
        return [ACCEPTED] * len(batch)
    return _judge(conn, batch, firsts, set(fresh))


def driver(conn: sa.Connection) -> psycopg.Connection[Any]:
    """Return the driver's connection under SQLAlchemy's: the same transaction."""
    return cast("psycopg.Connection[Any]", conn.connection.driver_connection)


def _begin(conn: psycopg.Connection[Any]) -> _Place:
    row = conn.execute(_BEGIN, prepare=True).fetchone()
    if row is None or not row[3]:
        raise DatabaseRestored
    return _Place(row[0], row[1], to_us(row[2]))


def _insert_keys(
    conn: psycopg.Connection[Any], firsts: Mapping[bytes, Placed], floor: int, *, expect_new: bool
) -> list[bytes]:
    """Insert the keys that are not there, but none below the floor; return them, sorted."""
    keys = sorted(firsts)
    events = [firsts[key].event for key in keys]
    times = [event.time for event in events]
    if keys and min(times) < floor:
        keys = [key for key, time in zip(keys, times, strict=True) if time >= floor]
        events = [firsts[key].event for key in keys]
        times = [event.time for event in events]
    if not keys:
        return []
    if expect_new:
        rows = [
            _KEY.pack(_KEY_FIELDS, 8, key[:_KEY_WIDTH], 16, event.identity, 16, event.content, 8, time - wire.SHIFT)
            for key, event, time in zip(keys, events, times, strict=True)
        ]
        _copy(conn, _COPY_KEYS, rows)
        return keys
    cursor = conn.execute(
        _INSERT_KEYS,
        (
            wire.int8_array([key[:_KEY_WIDTH] for key in keys]),
            wire.uuid_array([event.identity for event in events]),
            wire.uuid_array([event.content for event in events]),
            wire.time_array(times),
        ),
        prepare=True,
        binary=True,
    )
    if cursor.rowcount == len(keys):
        return keys
    return sorted(customer + digest for customer, digest in wire.rows(cursor, 2))


def _judge(
    conn: psycopg.Connection[Any], batch: Sequence[Placed], firsts: Mapping[bytes, Placed], fresh: set[bytes]
) -> list[Verdict]:
    """Return the verdicts where not all was fresh: contents are compared with what is stored now."""
    there = [key for key in firsts if key not in fresh]
    contents = {key: firsts[key].event.content for key in fresh} | _contents(conn, there)
    verdicts = []
    for placed in batch:
        key = placed.customer + placed.event.identity
        if not placed.customer:
            verdicts.append(quarantined(placed.event, placed.reason))
        elif key in fresh and firsts[key] is placed:
            verdicts.append(ACCEPTED)
        elif key not in contents:
            verdicts.append(TOO_OLD)
        else:
            verdicts.append(DUPLICATE if contents[key] == placed.event.content else CONFLICT)
    return verdicts


def _contents(conn: psycopg.Connection[Any], keys: Sequence[bytes]) -> dict[bytes, bytes]:
    if not keys:
        return {}
    customers = wire.int8_array([key[:_KEY_WIDTH] for key in keys])
    digests = wire.uuid_array([key[_KEY_WIDTH:] for key in keys])
    cursor = conn.execute(_CONTENTS, (customers, digests), prepare=True, binary=True)
    return {customer + digest: content for customer, digest, content in wire.rows(cursor, 3)}


def _append(conn: psycopg.Connection[Any], accepted: Sequence[Placed], place: _Place, now: datetime) -> None:
    seals = _seals(conn, accepted)
    no_seal, tx = wire.text(wire.int8(0)), wire.text(wire.int8(place.tx))
    received = wire.text(wire.time(to_us(now))) + wire.text(place.generation.to_bytes(4, "big"))
    sampled, unsampled = received + wire.text(b"\x01"), received + wire.text(b"\x00")
    texts = wire.Texts()
    head, field, jsonb, shift = _HEAD.pack, wire.field, wire.jsonb, wire.SHIFT
    parts: list[bytes] = []
    for event, customer, _reason, span_id, is_sampled in accepted:
        _, _, id_bytes, source, type_bytes, time, quantities, attributes, trace_id, identity, _ = event
        seal = no_seal
        if seals and customer in seals:
            seal = wire.text(wire.int8(_seal_of(time, seals[customer])))
        parts += (
            head(_FIELDS, 8, customer, 8, time - shift, 16, identity),
            tx,
            seal,
            field(span_id),
            field(trace_id),
            sampled if is_sampled else unsampled,
            field(id_bytes),
            texts[source],
            texts[type_bytes],
            jsonb(quantities),
            jsonb(attributes),
        )
    _copy(conn, _COPY, parts)


def _copy(conn: psycopg.Connection[Any], statement: str, parts: Sequence[bytes]) -> None:
    with conn.cursor() as cursor, cursor.copy(statement) as copy:
        copy.write(b"".join((wire.COPY_HEADER, *parts, wire.COPY_TRAILER)))


def _seals(conn: psycopg.Connection[Any], accepted: Sequence[Placed]) -> dict[bytes, list[tuple[int, int]]]:
    """Return by customer the seals, as (end, number) in order, that some of the events came too late for."""
    row = conn.execute(_LAST_SEAL, prepare=True).fetchone()
    if row is None or row[0] is None:
        return {}
    last = to_us(row[0])
    late = [placed for placed in accepted if placed.event.time < last]
    if not late:
        return {}
    customers = wire.int8_array(sorted({placed.customer for placed in late}))
    oldest = from_us(min(placed.event.time for placed in late))
    found: dict[bytes, list[tuple[int, int]]] = {}
    for customer, end, number in conn.execute(_SEALS, (customers, oldest), prepare=True):
        found.setdefault(wire.int8(customer), []).append((to_us(end), number))
    return found


def _seal_of(time: int, seals: Sequence[tuple[int, int]]) -> int:
    """Return the seal with the smallest end above `time`, 0 for none."""
    place = bisect_right(seals, time, key=lambda seal: seal[0])
    return seals[place][1] if place < len(seals) else 0
