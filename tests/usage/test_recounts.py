"""Meters that count stored events by a recount, archived and changed ones."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import grpc
import psycopg
import pytest
import sqlalchemy as sa
from eventually import eventually
from usage_harness import TYPE, Client, event, timestamp, totals, utc

from meterscope.usage.v1 import meter_service_pb2 as pb
from services.kit.db import Database
from services.kit.outbox import Job
from services.usage.settings import Settings
from services.usage.store import customers, meters, recounts, seals
from services.usage.usecases.background import Background
from services.usage.usecases.notifier import Notifier
from services.usage.usecases.positions import Positions
from services.usage.usecases.recounts import Recounts

pytestmark = pytest.mark.usefixtures("meters", "worker")

Sql = psycopg.Connection[tuple[Any, ...]]
MARCH = utc(2026, 3, 1)


def create(client: Client, meter: str, count_from: datetime | None, **fields: Any) -> pb.Meter:
    message = pb.Meter(id=meter, event_type=TYPE, aggregation=pb.AGGREGATION_COUNT)
    message.MergeFrom(pb.Meter(**fields))
    if count_from is not None:
        message.count_from.CopyFrom(timestamp(count_from))
    return client.meters.CreateMeter(pb.CreateMeterRequest(meter=message))


def until_recounted(client: Client, meter: str) -> pb.MeterRecount:
    def done() -> pb.MeterRecount | None:
        recount = client.meters.GetMeter(pb.GetMeterRequest(meter_id=meter)).recount
        return recount if recount.state == pb.MeterRecount.STATE_DONE else None

    return cast("pb.MeterRecount", eventually(done))


def test_a_meter_may_count_stored_events_from_a_time_on(client: Client) -> None:
    customer = client.put_customer()
    stored = [event(customer, time=MARCH + timedelta(minutes=minutes)) for minutes in (0, 6, 7, 8, 60)]
    client.ingest(*stored)

    made = create(client, "from-march", MARCH + timedelta(minutes=7))
    client.ingest(event(customer, time=MARCH), event(customer, time=MARCH + timedelta(minutes=30)))
    recount = until_recounted(client, "from-march")

    assert made.recount.state == pb.MeterRecount.STATE_RUNNING
    assert recount.customers_done == recount.customers_total > 0
    # Of the stored ones those of minutes 7, 8 and 60; of those that came later both, one of them older.
    assert client.total(customer, "from-march") == 5
    assert client.total(customer, "requests") == 7


def test_what_a_meter_counts_of_closed_periods_is_shown_and_never_billed(client: Client) -> None:
    customer = client.put_customer()
    april = utc(2026, 4, 1)
    client.ingest(event(customer, time=MARCH), event(customer, time=april))
    client.seal(customer, MARCH, april)

    create(client, "after-seal", MARCH)
    until_recounted(client, "after-seal")
    client.ingest(event(customer, time=MARCH + timedelta(hours=1)))

    assert client.total(customer, "after-seal") == 3
    sealed = client.seal(customer, april, utc(2026, 5, 1))
    # Late for March came one event after the meter was made; April has the one that it counted when April was open.
    late = {total.meter: total.value.value for total in sealed.late_usage[0].totals}
    assert (late["requests"], late["after-seal"]) == ("2", "1")
    assert {total.meter: total.value.value for total in sealed.totals}["after-seal"] == "1"


def test_a_recount_mends_totals(client: Client, sql: Sql) -> None:
    customer = client.put_customer()
    client.ingest(*[event(customer, time=MARCH + timedelta(minutes=n), quantities={"bytes": "5"}) for n in range(40)])
    assert client.total(customer, "bytes") == 200
    sql.execute("UPDATE bucket_totals SET sum = sum + 1 WHERE meter = (SELECT number FROM meters WHERE id = 'bytes')")
    assert client.total(customer, "bytes") == 203

    client.meters.RecountMeter(pb.RecountMeterRequest(meter_id="bytes"))

    until_recounted(client, "bytes")
    assert client.total(customer, "bytes") == 200


def test_below_the_raw_floor_nothing_is_recounted(client: Client, sql: Sql) -> None:
    before = sql.execute("SELECT time FROM floors WHERE name = 'raw'").fetchone()
    sql.execute("DELETE FROM floors WHERE name = 'raw'")
    sql.execute("INSERT INTO floors VALUES ('raw', '2026-02-01')")
    try:
        with pytest.raises(grpc.RpcError) as caught:
            create(client, "too-old", utc(2026, 1, 31))
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert "2026-02-01" in str(caught.value.details())
        with pytest.raises(grpc.RpcError) as caught:
            client.meters.RecountMeter(
                pb.RecountMeterRequest(meter_id="requests", count_from=timestamp(utc(2026, 1, 31)))
            )
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    finally:
        sql.execute("DELETE FROM floors WHERE name = 'raw'")
        if before is not None:
            sql.execute("INSERT INTO floors VALUES ('raw', %s)", before)


def test_a_meter_that_is_to_count_what_has_not_happened_is_refused(client: Client) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        create(client, "ahead", datetime.now(UTC) + timedelta(hours=1))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "count_from" in str(caught.value.details())


def test_an_archived_meter_counts_no_more_and_can_be_asked(client: Client) -> None:
    create(client, "old", None)
    customer = client.put_customer()
    client.ingest(event(customer))

    archived = client.meters.ArchiveMeter(pb.ArchiveMeterRequest(meter_id="old"))
    client.ingest(event(customer))

    assert archived.HasField("archive_time")
    assert client.meters.ArchiveMeter(pb.ArchiveMeterRequest(meter_id="old")) == archived
    assert (client.total(customer, "old"), client.total(customer, "requests")) == (1, 2)
    with pytest.raises(grpc.RpcError) as caught:
        client.meters.RecountMeter(pb.RecountMeterRequest(meter_id="old"))
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION


def test_what_people_see_of_a_meter_may_change(client: Client) -> None:
    made = create(client, "shown", None, unit="things", description="what it was")

    changed = client.meters.UpdateMeter(pb.UpdateMeterRequest(meter_id="shown", description=""))

    assert (changed.unit, changed.description) == ("things", "")
    # It is still the same meter.
    assert create(client, "shown", None, unit="things", description="what it was") == changed
    assert changed.create_time == made.create_time
    for request, code in (
        (pb.UpdateMeterRequest(meter_id="shown", unit="x" * 65), grpc.StatusCode.INVALID_ARGUMENT),
        (pb.UpdateMeterRequest(meter_id="shown", unit="\0"), grpc.StatusCode.INVALID_ARGUMENT),
        (pb.UpdateMeterRequest(meter_id="nothing"), grpc.StatusCode.NOT_FOUND),
        (pb.UpdateMeterRequest(), grpc.StatusCode.INVALID_ARGUMENT),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            client.meters.UpdateMeter(request)
        assert caught.value.code() is code


@pytest.fixture
def database(migrated: Settings) -> Iterator[Database]:
    database = Database(migrated.database_url, schema=migrated.database_schema, service="usage", role="worker")
    yield database
    database.dispose()


class _Killed(Exception):
    """Stands for a process that dies."""


class _Run:
    """A run of the job that dies in front of its n-th transaction."""

    def __init__(self, recount: int, lives: int) -> None:
        self.payload = {"recount": recount}
        self.lives = lives

    def fence(self, _conn: sa.Connection) -> None:
        self.lives -= 1
        if self.lives < 0:
            raise _Killed

    def finish(self, _conn: sa.Connection) -> None:
        self.lives -= 1


def test_a_recount_that_dies_goes_on_where_it_was(client: Client, database: Database) -> None:
    """In slices of four events, killed in front of every transaction in turn, it counts each event once."""
    customers = [client.put_customer() for _ in range(3)]
    for customer in customers:
        client.ingest(*[event(customer, time=MARCH + timedelta(minutes=20 * n)) for n in range(7)])
    create(client, "killed", None)
    notifier = Notifier(database)
    positions = Positions(database, notifier)
    stop = threading.Event()
    threads = [threading.Thread(target=loop.run, args=(stop,)) for loop in (notifier, positions)]
    for thread in threads:
        thread.start()
    try:
        with database.transaction() as conn:
            stored = meters.find(conn, "killed")
            assert stored is not None
            meters.count_from(conn, stored.number, MARCH)
            number = recounts.begin(conn, stored.number, MARCH, datetime.now(UTC))
            assert number is not None
            assert recounts.begin(conn, stored.number, MARCH, datetime.now(UTC)) is None
        job = Recounts(database, positions, lambda: datetime.now(UTC), events_a_slice=4)
        deaths, lives = 0, 0
        while True:
            try:
                job.run(cast("Job", _Run(number, lives)))
                break
            except _Killed:
                deaths += 1
                lives = 1 + deaths % 3
    finally:
        stop.set()
        for thread in threads:
            thread.join()

    assert deaths > 5
    assert [client.total(customer, "killed") for customer in customers] == [7, 7, 7]
    with database.autocommit() as conn:
        found = recounts.latest(conn, stored.number)
        left = conn.execute(sa.text("SELECT count(*) FROM recount_slices")).scalar_one()
    assert found is not None
    assert (found.state, found.events_done >= 21, left) == ("DONE", True, 0)


@pytest.fixture
def counting(database: Database) -> Iterator[Recounts]:
    """The job that recounts, in slices of four events."""
    notifier = Notifier(database)
    positions = Positions(database, notifier)
    background = Background([notifier, positions])
    background.start()
    yield Recounts(database, positions, lambda: datetime.now(UTC), events_a_slice=4)
    background.stop()


def test_a_seal_amid_a_recount_tells_the_rest_although_nothing_else_comes_late(
    client: Client, database: Database, counting: Recounts
) -> None:
    april, may = utc(2026, 4, 1), utc(2026, 5, 1)
    customer = client.put_customer()
    client.ingest(*[event(customer, time=MARCH + timedelta(minutes=20 * n)) for n in range(7)])
    create(client, "amid", None)
    with database.transaction() as conn:
        stored = meters.find(conn, "amid")
        assert stored is not None
        meters.count_from(conn, stored.number, MARCH)
        number = recounts.begin(conn, stored.number, MARCH, datetime.now(UTC))
        assert number is not None

    def goes_on(transactions: int) -> None:
        counting.run(cast("Job", _Run(number, transactions)))

    # Four events are a slice, of seven: it stops where some of the customer's are counted.
    while client.total(customer, "amid") == 0:
        with pytest.raises(_Killed):
            goes_on(2)
    counted = client.total(customer, "amid")
    assert 0 < counted < 7
    sealed = client.seal(customer, MARCH, april)
    assert totals(sealed)["amid"] == counted
    goes_on(1_000)
    assert client.total(customer, "amid") == 7

    (late,) = client.seal(customer, april, may).late_usage
    # Sealed and late together.
    assert totals(late)["amid"] == totals(late)["requests"] == 7
    # What was sealed stays so, and a seal that was frozen when the recount was through has nothing late.
    assert totals(client.seal(customer, MARCH, april)) == totals(sealed)


def test_a_seal_that_was_not_frozen_yet_bills_what_is_counted_before_it_is(client: Client, database: Database) -> None:
    """As after a SealUsage that died, or still waits for the rollup, when the meter is made."""
    april = utc(2026, 4, 1)
    customer = client.put_customer()
    client.ingest(*[event(customer, time=MARCH + timedelta(hours=n)) for n in range(3)])
    with database.transaction() as conn:
        number = customers.number(conn, customer)
        assert number is not None
        seals.create(conn, number, MARCH, april)
    # One that was frozen, of another customer, has a higher number.
    other = client.put_customer()
    client.ingest(event(other, time=MARCH))
    client.seal(other, MARCH, april)

    create(client, "before-freezing", MARCH)
    until_recounted(client, "before-freezing")

    assert totals(client.seal(customer, MARCH, april))["before-freezing"] == 3
    # The other's was frozen before: shown, and never billed.
    assert client.total(other, "before-freezing") == 1
    client.ingest(event(other, time=MARCH + timedelta(hours=1)))
    (late,) = client.seal(other, april, utc(2026, 5, 1)).late_usage
    assert (totals(late)["before-freezing"], totals(late)["requests"]) == (1, 2)
