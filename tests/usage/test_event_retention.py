"""Raw events and identities go when nothing needs them any more, and what they added up to stays."""

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import psycopg
import pytest
from eventually import eventually
from usage_harness import Client, event, timestamp, totals

from meterscope.usage.v1 import event_service_pb2 as pb
from services.kit.db import Database
from services.usage.settings import Settings
from services.usage.usecases.retention import Retention
from services.usage.usecases.upkeep import Upkeep

pytestmark = pytest.mark.usefixtures("meters", "worker")

Sql = psycopg.Connection[tuple[Any, ...]]
Run = Callable[..., None]

NOW = datetime.now(UTC)
# Events are accepted for so long here, so that the months before the last one are too old.
ACCEPTED = timedelta(days=62)


def month(back: int, *, day: int = 1) -> datetime:
    """A day of the month so many months ago. Month partitions begin three months ago."""
    months = NOW.year * 12 + NOW.month - 1 - back
    return datetime(months // 12, months % 12 + 1, day, tzinfo=UTC)


@pytest.fixture
def retention(database: Database, sql: Sql) -> Callable[..., Retention]:
    """The job at a time of one's own, when the worker has run its own one."""
    eventually(lambda: {"keys", "raw"} <= floors(sql).keys())

    def make(now: datetime, **options: Any) -> Retention:
        defaults = {"raw_events": ACCEPTED, "refused": timedelta(days=1000), "archive": False}
        return Retention(database, lambda: now, **{**defaults, **options})

    return make


@pytest.fixture
def run(database: Database, retention: Callable[..., Retention]) -> Run:
    """Both jobs at the time at which events are accepted from `accepted_from` on."""

    def run(accepted_from: datetime, **options: Any) -> None:
        now = accepted_from + ACCEPTED
        Upkeep(database, lambda: now, accepted=ACCEPTED, reports_kept=timedelta(days=7)).run()
        retention(now, **options).run()

    return run


def floors(sql: Sql) -> dict[str, datetime]:
    return {str(name): time for name, time in sql.execute("SELECT name, time FROM floors").fetchall()}


def tables(sql: Sql) -> set[str]:
    return {str(name) for (name,) in sql.execute("SELECT relname FROM pg_class WHERE relkind = 'r'").fetchall()}


def partition(back: int) -> str:
    return f"events_{month(back):%Y%m}"


def keys(sql: Sql, customer: str) -> int:
    query = "SELECT count(*) FROM event_keys JOIN customers ON number = customer WHERE id = %s"
    (row,) = sql.execute(query, [customer]).fetchall()
    return int(row[0])


def list_events(client: Client, customer: str, **chosen: datetime) -> list[str]:
    request = pb.ListEventsRequest(
        customer_id=customer, **{name: timestamp(instant) for name, instant in chosen.items()}
    )
    return [each.id for each in client.events.ListEvents(request).events]


@pytest.mark.parametrize("holds", ["SELECT pg_current_xact_id()", "SELECT 1 FROM events_default"])
def test_nothing_goes_while_a_writer_of_before_may_not_have_seen_the_floor(
    client: Client,
    retention: Callable[..., Retention],
    sql: Sql,
    migrated: Settings,
    caplog: pytest.LogCaptureFixture,
    holds: str,
) -> None:
    customer = client.put_customer(has_plan=False)
    client.ingest(event(customer, time=month(8)))
    sql.execute("DELETE FROM floors WHERE name <> 'accepted_from'")
    with psycopg.connect(migrated.database_url, application_name="usage-server") as writer:
        writer.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        writer.execute(f"SET search_path = {migrated.database_schema}")
        writer.execute(holds)
        with caplog.at_level(logging.WARNING):
            retention(NOW, wait_seconds=0.5).run()
        assert "stay this time" in caplog.text
        assert floors(sql).keys() == {"accepted_from"}
    eventually(lambda: client.total(customer, "requests") == 1)
    retention(NOW).run()
    assert floors(sql).keys() == {"accepted_from", "keys", "raw"}


def test_months_go_when_all_of_them_is_sealed_and_nothing_counts_again(
    client: Client, run: Run, sql: Sql, caplog: pytest.LogCaptureFixture
) -> None:
    # Of three customers: with a plan, without one, and one whose last period has ended and is not sealed.
    planned, free = client.put_customer(), client.put_customer(has_plan=False)
    ended = client.put_customer(has_plan=False, periods=[(month(4), month(2))])
    for customer in (planned, free, ended):
        client.ingest(
            *[event(customer, id=f"m{back}", time=month(back, day=5), quantities={"bytes": "7"}) for back in (9, 3, 1)]
        )
        assert client.total(customer, "bytes") == 21
    first = client.seal(planned, month(9), month(3))
    assert totals(first) == {"requests": 1, "bytes": 7}

    with caplog.at_level(logging.WARNING):
        run(month(1))
    assert "some are not sealed" in caplog.text
    # The oldest event that is still to be billed is the one of month(9) whose customer's subscription has ended.
    assert floors(sql)["raw"] == month(9)
    assert partition(3) in tables(sql)
    # Identities go all the same: nothing that old is accepted.
    assert floors(sql)["keys"] == month(1)
    assert [keys(sql, customer) for customer in (planned, free, ended)] == [1, 1, 1]
    again = event(free, id="m3", time=month(3, day=5), quantities={"bytes": "7"})
    assert [result.reason for result in client.ingest(again).results] == ["TOO_OLD"]

    client.seal(ended, month(4), month(2))
    run(month(1))
    assert floors(sql)["raw"] == month(3)
    assert partition(3) in tables(sql)
    # What lay in the default partition below the floor has gone as well.
    assert list_events(client, free) == ["m3", "m1"]
    client.seal(planned, month(3), month(1))
    run(month(1))
    assert floors(sql)["raw"] == month(1)
    assert not {partition(3), partition(2)} & tables(sql)
    assert partition(1) in tables(sql)

    for customer in (planned, free, ended):
        assert list_events(client, customer) == ["m1"]
        assert client.total(customer, "bytes") == 21
    assert totals(client.seal(planned, month(9), month(3))) == totals(first)
    for chosen in ({"start_time": month(3)}, {"end_time": month(2)}):
        with pytest.raises(grpc.RpcError) as caught:
            list_events(client, planned, **chosen)
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert f"{month(1):%Y-%m-%d}" in (caught.value.details() or "")
    # The months that went do not come back, and neither floor moves back.
    run(month(4))
    assert partition(3) not in tables(sql)
    assert floors(sql)["raw"] == floors(sql)["keys"] == month(1)


def test_the_oldest_unsealed_event_is_found_however_many_customers_are_asked_for_at_once(
    client: Client, retention: Callable[..., Retention], sql: Sql, caplog: pytest.LogCaptureFixture
) -> None:
    """It is neither the first customer's nor the last one's."""
    for planned in client_unsealed(sql):
        client.seal(planned, month(9), NOW)
    customers = [client.put_customer() for _ in range(4)]
    for customer, day in zip(customers, (5, 3, 2, 4), strict=True):
        client.ingest(event(customer, time=month(1, day=day)))
        assert client.total(customer, "requests") == 1
    (before,) = sql.execute("SELECT time FROM floors WHERE name = 'accepted_from'").fetchall()
    for at_once in (1, 2, 3, 1000):
        sql.execute("UPDATE floors SET time = %s WHERE name = 'accepted_from'", [month(0)])
        sql.execute("DELETE FROM floors WHERE name = 'raw'")
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            retention(month(0) + ACCEPTED, customers_at_once=at_once).run()
        kept = [vars(record) for record in caplog.records if "some are not sealed" in record.message]
        assert [(each["customer_id"], each["time"]) for each in kept] == [(customers[2], month(1, day=2).isoformat())]
        assert floors(sql)["raw"] == month(1)
    sql.execute("UPDATE floors SET time = %s WHERE name IN ('accepted_from', 'keys')", [before[0]])


def test_nothing_is_counted_anew_below_the_raw_floor(client: Client, run: Run, sql: Sql) -> None:
    customer = client.put_customer(has_plan=False)
    noon = month(1, day=9) + timedelta(hours=12)
    client.ingest(*[event(customer, time=noon + timedelta(minutes=minutes)) for minutes in (0, 7, 14)])
    assert client.total(customer, "requests") == 3
    for planned in client_unsealed(sql):
        client.seal(planned, month(9), month(0))
    run(month(0))
    assert floors(sql)["raw"] == month(0)

    # A period that begins within a quarter of an hour cuts it anew, from events that are not there any more.
    client.put_customer(customer, revision=2, periods=[(noon + timedelta(minutes=5), month(0))])
    client.ingest(event(customer, time=NOW))
    eventually(lambda: client.total(customer, "requests", month(0)) == 1)
    assert client.total(customer, "requests", month(1), month(0)) == 3


def client_unsealed(sql: Sql) -> list[str]:
    return [str(name) for (name,) in sql.execute("SELECT id FROM customers WHERE has_plan").fetchall()]


def test_months_may_be_kept_as_tables_of_their_own(client: Client, run: Run, sql: Sql) -> None:
    customer = client.put_customer(has_plan=False)
    client.ingest(event(customer, id="kept", time=NOW))
    assert client.total(customer, "requests") == 1
    sql.execute(
        "INSERT INTO events SELECT customer, '2001-01-01', digest, tx, seal, span_id, trace_id, received, generation,"
        " sampled, id, source, type, quantities, attributes FROM events WHERE id = 'kept'"
    )
    for planned in client_unsealed(sql):
        client.seal(planned, month(9), NOW + timedelta(days=31))

    run(month(-1), archive=True)

    archive = f"events_archive_{NOW:%Y%m}"
    assert {archive, "events_archive_default"} <= tables(sql)
    assert ("kept",) in sql.execute(f"SELECT id FROM {archive}").fetchall()  # noqa: S608 - a name of ours
    assert sql.execute("SELECT id FROM events_archive_default").fetchall() == [("kept",)]
    assert sql.execute("SELECT id FROM events").fetchall() == []
    assert client.total(customer, "requests") == 1


def test_held_events_are_refused_when_they_are_too_old_and_deleted_later(client: Client, run: Run, sql: Sql) -> None:
    client.ingest(event("nobody", id="held", time=NOW), event("nobody", id="young", time=NOW))
    sql.execute("UPDATE quarantine SET time = %s WHERE id = 'young'", [month(-2)])
    query = "SELECT id, refusal FROM quarantine ORDER BY id"

    run(month(-2))
    assert sql.execute(query).fetchall() == [("held", "TOO_OLD"), ("young", None)]
    run(month(-2), refused=timedelta(days=1))
    assert sql.execute(query).fetchall() == [("young", None)]
