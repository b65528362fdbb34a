"""The most that PostgreSQL can take: the same unique keys and a COPY of the same rows, and nothing else.

The rows are the service's own, read back from its table, so that they are as wide as what it stores. The tables are
like the service's, without its further indexes. Texts are built before the clock starts; each transaction of 1,000 rows
is one INSERT … ON CONFLICT DO NOTHING RETURNING of the sorted keys and one COPY, committed with fsync.
"""

import statistics
import threading
import time
import uuid
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import psycopg
from psycopg import sql

BATCH = 1_000
CONNECTIONS = (1, 2, 4, 8)

KEYS = """
    INSERT INTO bench_limit.event_keys (customer, digest, content, time)
    SELECT * FROM unnest(%s::bigint[], %s::uuid[], %s::uuid[], %s::timestamptz[])
    ON CONFLICT DO NOTHING RETURNING customer, digest
"""


@dataclass(frozen=True)
class Batch:
    """One transaction's parameters: four array literals and the rows of the COPY."""

    keys: tuple[str, str, str, str]
    rows: bytes


def create(url: str, schema: str) -> None:
    """Make the limit's tables: keys as the service has them, events without any index."""
    with psycopg.connect(url, autocommit=True) as conn:
        names = {"schema": sql.Identifier(schema)}
        conn.execute("DROP SCHEMA IF EXISTS bench_limit CASCADE")
        conn.execute("CREATE SCHEMA bench_limit")
        keys = (
            "CREATE TABLE bench_limit.event_keys (LIKE {schema}.event_keys INCLUDING ALL) PARTITION BY HASH (customer)"
        )
        conn.execute(sql.SQL(keys).format(**names))
        for number in range(16):
            conn.execute(
                sql.SQL(
                    "CREATE TABLE {} PARTITION OF bench_limit.event_keys FOR VALUES WITH (MODULUS 16, REMAINDER {})"
                ).format(sql.Identifier("bench_limit", f"event_keys_{number}"), sql.Literal(number))
            )
        conn.execute(sql.SQL("CREATE TABLE bench_limit.events (LIKE {schema}.events)").format(**names))


def batches(url: str, schema: str, count: int) -> list[Batch]:
    """Build transactions out of rows that the service stored, under identities of their own."""
    made = []
    with psycopg.connect(url) as conn, conn.cursor() as cursor:
        cursor.execute(sql.SQL("SELECT * FROM {}.events LIMIT 0").format(sql.Identifier(schema)))
        columns = [column.name for column in cursor.description or []]
        place = {name: columns.index(name) for name in ("customer", "digest", "time")}
        with conn.cursor() as texts:
            query = sql.SQL("COPY (SELECT * FROM {}.events LIMIT {}) TO STDOUT").format(
                sql.Identifier(schema), sql.Literal(count * BATCH)
            )
            with texts.copy(query) as copy:
                lines = b"".join(bytes(part) for part in copy).splitlines()
    for first in range(0, len(lines), BATCH):
        rows = [line.split(b"\t") for line in lines[first : first + BATCH]]
        for row in rows:
            row[place["digest"]] = str(uuid.uuid4()).encode()
        rows.sort(key=lambda row: (int(row[place["customer"]]), row[place["digest"]]))
        keys = (
            _array(row[place["customer"]] for row in rows),
            _array(row[place["digest"]] for row in rows),
            _array(str(uuid.uuid4()).encode() for _ in rows),
            _array(b'"' + row[place["time"]] + b'"' for row in rows),
        )
        made.append(Batch(keys, b"\n".join(b"\t".join(row) for row in rows) + b"\n"))
    return made


def best_connections(url: str, work: list[Batch], runs: int = 2) -> tuple[int, dict[int, list[float]]]:
    """Find out with how many connections this machine is fastest; return that number, and all rates in rows/s."""
    rates = {connections: [run(url, work, connections) for _ in range(runs)] for connections in CONNECTIONS}
    return max(rates, key=lambda connections: statistics.median(rates[connections])), rates


def run(url: str, work: list[Batch], connections: int) -> float:
    """Send all transactions over so many connections, into emptied tables; return rows/s."""
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("TRUNCATE bench_limit.event_keys, bench_limit.events")
    pending = iter(work)
    lock = threading.Lock()
    opened = [psycopg.connect(url, autocommit=True) for _ in range(connections)]

    def worker(conn: psycopg.Connection[tuple[object, ...]]) -> None:
        while True:
            with lock:
                batch = next(pending, None)
            if batch is None:
                return
            with conn.transaction(), conn.cursor() as cursor:
                cursor.execute(KEYS, batch.keys, prepare=True, binary=True)
                cursor.fetchall()
                with cursor.copy("COPY bench_limit.events FROM STDIN") as copy:
                    copy.write(batch.rows)

    started = time.perf_counter()
    with ThreadPoolExecutor(connections) as pool:
        for done in [pool.submit(worker, conn) for conn in opened]:
            done.result()
    seconds = time.perf_counter() - started
    for conn in opened:
        conn.close()
    return len(work) * BATCH / seconds


def _array(parts: Iterable[bytes]) -> str:
    return "{" + b",".join(parts).decode() + "}"
