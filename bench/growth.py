"""How the cost of a batch grows with customers, and with the rows that lie behind it.

For each number of customers (`--customers`, several) and of rows (`--rows`, several) on a fresh database: events of the
last 60 days are put behind it with their identities and totals, in SQL; then batches of 1,000 are sent as bench.ingest
sends them, and the rollup is waited for. Printed and saved are the seconds and the processor's seconds of servers, worker
and PostgreSQL for 1,000 events, and how long the rollup was behind the last answer. bench/results/growth.json.
"""

import argparse
import statistics
import time
from datetime import UTC, datetime
from typing import Any

import psycopg

from bench import load, machine
from bench.usage_stack import EVENT_TYPE, UsageStack, running

BATCH = 1_000
CALLERS = 8
# Rows in one transaction: a killed filling leaves little to undo.
_STRETCH = 1_000_000
# Random inserts into a key index larger than the shared buffers are what is measured, not what the filling should pay.
_WITHOUT_INDEXES = """
ALTER TABLE event_keys DROP CONSTRAINT event_keys_pkey;
DROP INDEX events_by_time
"""
_INDEXES = """
ALTER TABLE event_keys ADD PRIMARY KEY (customer, digest);
CREATE INDEX events_by_time ON events (customer, time)
"""
# Days are spread over two months, as a table of that age has them; digests are random, as those of identities are.
_MADE = """
SELECT c.number AS customer, %(now)s - (n %% 5184000) * interval '1 second' AS time, gen_random_uuid() AS digest, n
FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS n
JOIN (SELECT number, row_number() OVER (ORDER BY number) - 1 AS place FROM customers) AS c
    ON c.place = n %% (SELECT count(*) FROM customers)
"""
_EVENTS = f"""
WITH made AS MATERIALIZED ({_MADE}),
keys AS (
    INSERT INTO event_keys (customer, digest, content, time)
    SELECT customer, digest, gen_random_uuid(), time FROM made
)
INSERT INTO events (customer, time, digest, tx, seal, received, generation, sampled, id, source, type, quantities,
                    attributes)
SELECT customer, time, digest, %(tx)s::text::xid8, 0, time, 1, false, 'behind-' || n, 'bench/growth', '{EVENT_TYPE}',
       jsonb_build_object('bytes', n %% 100000),
       jsonb_build_object('path', '/v1/things/' || n %% 50, 'status', '200')
FROM made
"""  # noqa: S608 - a constant
_TOTALS = f"""
INSERT INTO bucket_totals (customer, meter, start_time, seal, group_key, count, sum)
SELECT q.customer, m.number, q.start_time, 0, '00000000-0000-0000-0000-000000000000', q.count,
       CASE WHEN m.aggregation = 'SUM' THEN q.sum ELSE 0 END
FROM (
    SELECT customer, date_bin('15 minutes', time, '2000-01-01') AS start_time, count(*) AS count,
           sum(n %% 100000) AS sum
    FROM ({_MADE}) AS made GROUP BY 1, 2
) AS q CROSS JOIN meters AS m
"""  # noqa: S608 - constants


def main() -> None:
    """Measure, print, save."""
    arguments = _arguments()
    found = []
    for customers in arguments.customers:
        for rows in arguments.rows:
            with running(customers, servers=arguments.servers) as stack:
                fill(stack, rows)
                found.append({"customers": customers, "rows": rows, **measure(stack, customers, arguments)})
            _show(found[-1])
    path = machine.save(arguments.save, {"arguments": vars(arguments), "runs": found})
    print(f"saved to {path.relative_to(path.parents[2])}")


def fill(stack: UsageStack, rows: int) -> None:
    """Put events behind it, counted already: their transaction lies before the rollup's place."""
    if not rows:
        return
    started = time.perf_counter()
    options = (
        "-c search_path=usage -c synchronous_commit=off -c work_mem=1GB -c maintenance_work_mem=1GB "
        "-c max_parallel_maintenance_workers=1"
    )
    with psycopg.connect(stack.postgres.url("usage"), options=options, autocommit=True) as conn:
        # Of the newest meter's transaction: both meters count it, and the rollup is past it.
        (tx,) = conn.execute("SELECT CAST(max(from_tx) AS text) FROM meters").fetchall()[0]
        values = {"now": datetime.now(UTC), "tx": tx}
        _each(conn, _WITHOUT_INDEXES)
        for first in range(0, rows, _STRETCH):
            conn.execute(_EVENTS, {**values, "first": first, "last": min(first + _STRETCH, rows) - 1})
        _each(conn, _INDEXES)
        conn.execute(_TOTALS, {**values, "first": 0, "last": rows - 1})
        conn.execute("VACUUM (ANALYZE) events, event_keys, bucket_totals")
        conn.execute("CHECKPOINT")
    print(f"{rows:,} rows put behind it in {time.perf_counter() - started:.0f} s", flush=True)


def _each(conn: psycopg.Connection, statements: str) -> None:
    for statement in statements.split(";"):
        conn.execute(statement)


def measure(stack: UsageStack, customers: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Send batches in runs of a fifth of the events; return the figures of each run."""
    calls = max(arguments.events // 5 // BATCH, 1)
    load.send(load.Load(stack.address, load.requests("warm", 20, BATCH, customers), CALLERS, connections=CALLERS))
    _settle(stack)
    seconds, processor, behind, latencies = [], [], [], []
    for run in range(5):
        requests = load.requests(f"g{run}-{time.time_ns()}", calls, BATCH, customers)
        before = stack.processor_seconds()
        sent = load.send(load.Load(stack.address, requests, CALLERS, connections=CALLERS))
        if sent.accepted != calls * BATCH:
            raise RuntimeError(f"{sent.accepted} of {calls * BATCH} events accepted")
        behind.append(_settle(stack))
        processor.append((stack.processor_seconds() - before) / calls)
        seconds.append(sent.seconds / calls)
        latencies.append(statistics.median(sent.latencies))
    return {
        "events": 5 * calls * BATCH,
        "seconds_per_batch": seconds,
        "processor_seconds_per_batch": processor,
        "median_latency_seconds": latencies,
        "rollup_seconds_behind": behind,
    }


def _settle(stack: UsageStack) -> float:
    """Wait until the rollup has counted all that was acknowledged; return how many seconds that took."""
    started = time.perf_counter()
    query = "SELECT NOT EXISTS (SELECT 1 FROM usage.events WHERE tx >= (SELECT min(last) FROM usage.rollups))"
    with psycopg.connect(stack.postgres.url("usage"), autocommit=True) as conn:
        while conn.execute(query).fetchone() != (True,):
            time.sleep(0.02)
    return time.perf_counter() - started


def _show(run: dict[str, Any]) -> None:
    batch, processor = (
        statistics.median(run["seconds_per_batch"]),
        statistics.median(run["processor_seconds_per_batch"]),
    )
    print(
        f"{run['customers']:,} customers, {run['rows']:,} rows behind: {batch * 1e3:.1f} ms a batch of {BATCH:,} "
        f"({BATCH / batch:,.0f} events/s), {processor * 1e3:.1f} ms of processor, "
        f"rolled up {max(run['rollup_seconds_behind']):.2f} s behind the last answer at most",
        flush=True,
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.growth", description=__doc__)
    parser.add_argument("--customers", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--rows", type=int, nargs="+", default=[0], help="events behind it")
    parser.add_argument("--events", type=int, default=1_000_000, help="events that are sent")
    parser.add_argument("--servers", type=int, default=2, help="server processes on one port")
    parser.add_argument("--save", default="growth", help="name of the result")
    return parser.parse_args()


if __name__ == "__main__":
    main()
