"""Pages of a large customer's events: none costs a sort, or a read, of all of them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import psycopg
import pytest
import sqlalchemy as sa

from services.kit.db import Database
from services.usage.domain.correction import EventState
from services.usage.settings import Settings
from services.usage.store import events
from services.usage.store.events import Filter, Key

EVENTS: Final = 200_000
PAGE: Final = 100
NOW: Final = datetime.now(UTC)
START: Final = NOW - timedelta(days=150)
MIDDLE: Final = NOW - timedelta(days=75)
BIG: Final = 1
# Each midnight has 33 events of one instant, as a backfill by the day makes them.
FILL: Final = """
INSERT INTO events (customer, time, digest, tx, seal, received, generation, sampled, id, source, type)
SELECT %(big)s, CASE WHEN n %% 40 = 0 THEN date_trunc('day', t.time, 'UTC') ELSE t.time END,
       md5(n::text)::uuid, '3', 0, now(), 1, false, 'e' || n, 'source-' || n %% 5,
       CASE WHEN n %% 1000 = 0 THEN 'rare' ELSE 'type-' || n %% 3 END
FROM generate_series(1, %(events)s) AS n,
     LATERAL (SELECT %(start)s + (%(end)s - %(start)s) * (n::float8 / %(events)s) AS time) AS t
"""
CORRECT: Final = """
INSERT INTO corrections (customer, digest, time, tx, generation, seal, event_type, kind, id, source, superseding,
                         superseding_id, superseding_source, reason, context, created_at)
SELECT customer, digest, time, '4', 1, 0, type, 'CANCEL', id, source, NULL, '', '', '', '{}', now()
FROM events WHERE customer = %(big)s AND hashtext(id) %% 20 = 0
"""


@pytest.fixture(scope="module")
def database(migrated: Settings) -> Iterator[Database]:
    options = f"-c search_path={migrated.database_schema}"
    with psycopg.connect(migrated.database_url, autocommit=True, options=options) as sql:
        sql.execute("INSERT INTO customers (id, revision, time_zone, has_plan) VALUES ('cus_big', 1, 'UTC', true)")
        found = sql.execute("SELECT number FROM customers WHERE id = 'cus_big'").fetchone()
        assert found == (BIG,)
        sql.execute(FILL, {"big": BIG, "events": EVENTS, "start": START, "end": NOW})
        sql.execute(CORRECT, {"big": BIG})
        sql.execute("ANALYZE events")
        sql.execute("ANALYZE corrections")
    database = Database(migrated.database_url, schema=migrated.database_schema, service="usage")
    yield database
    database.dispose()


@dataclass(frozen=True)
class Cost:
    """What a statement did: rows that its scans read, and rows of its largest sort."""

    read: int
    sorted: int


def cost(database: Database, chosen: Filter, behind: Key | None) -> Cost:
    asked: list[tuple[str, Any]] = []

    def note(_conn: Any, _cursor: Any, statement: str, parameters: Any, *_rest: Any) -> None:
        asked.append((statement, parameters))

    with database.autocommit() as conn:
        sa.event.listen(database.engine, "before_cursor_execute", note)
        page = events.page(conn, BIG, chosen, behind, PAGE)
        sa.event.remove(database.engine, "before_cursor_execute", note)
        assert page
        ((statement, parameters),) = asked
        plan = conn.exec_driver_sql(f"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) {statement}", parameters).scalar_one()
    nodes = list(_nodes(plan[0]["Plan"]))
    scans = [node for node in nodes if "Relation Name" in node]
    read = sum((node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"] for node in scans)
    sorts = [node for node in nodes if node["Node Type"] in {"Sort", "Incremental Sort"}]
    return Cost(int(read), int(max((_input(node) for node in sorts), default=0)))


def _nodes(node: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield node
    for part in node.get("Plans", ()):
        yield from _nodes(part)


def _input(node: Mapping[str, Any]) -> float:
    return max(part["Actual Rows"] * part["Actual Loops"] for part in node["Plans"])


@pytest.mark.parametrize("behind", [None, Key(MIDDLE, UUID(int=0)), Key(NOW - timedelta(days=20), UUID(int=1))])
@pytest.mark.parametrize(
    "chosen",
    [
        Filter(),
        Filter(start=START + timedelta(days=30), end=NOW),
        Filter(type="type-1"),
        Filter(source="source-2"),
        Filter(type="type-1", source="source-2", start=START),
        Filter(state=EventState.ACTIVE),
        Filter(state=EventState.CANCELLED),
    ],
    ids=str,
)
def test_a_page_reads_a_few_pages_and_sorts_no_more(database: Database, chosen: Filter, behind: Key | None) -> None:
    """A page of 100 with its events' corrections; of type and source one in fifteen is meant."""
    found = cost(database, chosen, behind)
    assert found.read < EVENTS / 40
    assert found.sorted < EVENTS / 40


def test_a_rare_type_is_read_for_but_not_sorted(database: Database) -> None:
    """200 of 200,000 are of the type: there is no index for it, so that a page reads half of all, in order."""
    assert cost(database, Filter(type="rare"), None).sorted < EVENTS / 100


def test_pages_meet_every_event_once(database: Database) -> None:
    with database.autocommit() as conn:
        seen: list[Key] = []
        behind = None
        chosen = Filter(start=NOW - timedelta(days=3))
        while page := events.page(conn, BIG, chosen, behind, 1_000):
            seen += [key for key, _ in page]
            behind = page[-1][0]
    assert len(seen) == len(set(seen)) > 3_900
    assert seen == sorted(seen, key=lambda key: (key.time, key.digest.int))
