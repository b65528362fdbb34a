"""Jobs that make reports: however one ends, the report says so, and none is in the way of the next."""

import csv
import io
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import grpc
import psycopg
import pytest
from opentelemetry import metrics
from usage_harness import Client, utc

from meterscope.usage.v1 import report_service_pb2 as pb
from services.kit.channel import open_channel
from services.kit.db import Database
from services.kit.errors import InvalidArgument
from services.kit.outbox import Jobs, Outbox
from services.kit.runner import Runner
from services.kit.running import RunningJobs
from services.usage.clients import Billing
from services.usage.convert import reports as convert
from services.usage.convert.report_csv import as_csv
from services.usage.domain.limit import Period
from services.usage.errors import TooManyReports
from services.usage.metrics import CostMetrics, ReportMetrics
from services.usage.settings import Settings
from services.usage.store import customers
from services.usage.store import reports as store
from services.usage.usecases.background import Background
from services.usage.usecases.costs import Costs
from services.usage.usecases.notifier import Notifier
from services.usage.usecases.positions import Positions
from services.usage.usecases.reports.maker import ReportMaker
from services.usage.usecases.reports.report import UsageReport
from services.usage.usecases.reports.reports import MAKE_ATTEMPTS, MAKE_REPORT, Reports
from services.usage.usecases.upkeep import Upkeep

Sql = psycopg.Connection[tuple[Any, ...]]
Clock = Callable[[], datetime]
Encode = Callable[[UsageReport], bytes]

# Long enough for a job.
START, END = utc(2025, 1, 1), utc(2026, 1, 1)
DAY = timedelta(days=1)


def now() -> datetime:
    return datetime.now(UTC)


def encode(found: UsageReport) -> bytes:
    return convert.report(found).SerializeToString()


@pytest.fixture
def database(migrated: Settings) -> Iterator[Database]:
    database = Database(migrated.database_url, schema=migrated.database_schema, service="usage", role="worker")
    yield database
    database.dispose()


@pytest.fixture(scope="module")
def nobody() -> Iterator[str]:
    """A server that answers at once, and has no method: as a billing service that gives no prices."""
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


@pytest.fixture
def make(database: Database, migrated: Settings, sql: Sql, nobody: str) -> Iterator[Callable[[Clock], ReportMaker]]:
    """What makes reports, by a clock of one's own, with billing away. No worker runs: all there is is rolled up."""
    sql.execute("UPDATE rollups SET last = (SELECT pg_current_xact_id()::text::bigint + 1000000)::text::xid8")
    notifier = Notifier(database)
    positions = Positions(database, notifier)
    background = Background([notifier, positions])
    background.start()
    meter = metrics.get_meter("tests")
    with open_channel(nobody, migrated.kit) as channel:
        billing = Billing(channel)

        def make(clock: Clock) -> ReportMaker:
            costs = Costs(database, Outbox(database), billing, CostMetrics(meter), clock)
            return ReportMaker(database, billing, costs, positions, ReportMetrics(meter), clock)

        yield make
    background.stop()


@pytest.fixture
def reports(database: Database, make: Callable[[Clock], ReportMaker]) -> Callable[..., Reports]:
    def reports(clock: Clock = now) -> Reports:
        return Reports(database, Outbox(database), make(clock), clock)

    return reports


@pytest.fixture
def running(database: Database) -> Iterator[RunningJobs]:
    """Breaks jobs off that take longer than they may."""
    running, stop = RunningJobs(database, lease=timedelta(seconds=5)), threading.Event()
    thread = threading.Thread(target=running.run, args=[stop])
    thread.start()
    yield running
    stop.set()
    thread.join()


@pytest.fixture
def run(database: Database, sql: Sql, running: RunningJobs, reports: Callable[..., Reports]) -> Callable[..., None]:
    """Run a report's job as an attempt of a number; it may take two seconds."""

    def run(report_id: str, encode: Encode = encode, *, attempt: int = 1) -> None:
        made = reports()
        jobs = Jobs()
        limit = timedelta(seconds=2)
        jobs.register(MAKE_REPORT, lambda job: made.make(job, encode), time_limit=limit, max_attempts=MAKE_ATTEMPTS)
        handed_out = (
            "UPDATE outbox SET state = 'HANDED_OUT', attempts = %s WHERE payload ->> 'report_id' = %s RETURNING id"
        )
        (row,) = sql.execute(handed_out, [attempt - 1, report_id]).fetchall()
        Runner(database, jobs, running, lease=timedelta(seconds=5)).run_row(str(row[0]))

    return run


@pytest.fixture
def ask(client: Client, reports: Callable[..., Reports]) -> Callable[..., tuple[str, str]]:
    """Ask for a long report of a new customer; return both ids."""

    def ask() -> tuple[str, str]:
        customer = client.put_customer()
        found = reports().get(customer, START, END)
        assert isinstance(found, store.StoredReport)
        return customer, found.id

    return ask


def job_of(sql: Sql, report_id: str) -> tuple[Any, ...]:
    (row,) = sql.execute(
        "SELECT state, last_error FROM outbox WHERE payload ->> 'report_id' = %s", [report_id]
    ).fetchall()
    return row


def never_done(_found: UsageReport) -> bytes:
    """Until it is broken off."""
    waiting = threading.Event()
    while not waiting.wait(0.01):
        pass
    return b""


def broken(_found: UsageReport) -> bytes:
    raise RuntimeError("a secret of the inside")


def too_large(_found: UsageReport) -> bytes:
    raise InvalidArgument.at("end_time", "the report on this range has 40 MiB")


def test_an_attempt_that_fails_leaves_the_report_running_and_the_next_makes_it(
    ask: Callable[..., tuple[str, str]], run: Callable[..., None], reports: Callable[..., Reports], sql: Sql
) -> None:
    customer, report_id = ask()
    run(report_id, broken, attempt=MAKE_ATTEMPTS - 1)
    assert reports().stored(customer, report_id).state == store.RUNNING
    assert job_of(sql, report_id)[0] == "QUEUED"

    run(report_id, attempt=MAKE_ATTEMPTS)
    found = reports().stored(customer, report_id)
    assert (found.state, found.progress) == (store.READY, 100)
    assert pb.UsageReport.FromString(found.report).customer_id == customer
    assert job_of(sql, report_id) == ("DONE", None)


@pytest.mark.parametrize(
    ("encode", "error", "last_error"),
    [
        (broken, "the report could not be made; ask for its range again", "RuntimeError: a secret of the inside"),
        (never_done, "making the report took too long; ask for a shorter range", "TimeLimitExceeded: "),
    ],
)
def test_whatever_ends_the_last_attempt_fails_the_report(
    ask: Callable[..., tuple[str, str]],
    run: Callable[..., None],
    reports: Callable[..., Reports],
    sql: Sql,
    encode: Encode,
    error: str,
    last_error: str,
) -> None:
    customer, report_id = ask()
    run(report_id, encode, attempt=MAKE_ATTEMPTS)

    found = reports().stored(customer, report_id)
    assert (found.state, found.error) == (store.FAILED, error)
    # The job is dead, for people to look at.
    assert job_of(sql, report_id) == ("DEAD", last_error)
    # The same range is made anew.
    again = reports().get(customer, START, END)
    assert isinstance(again, store.StoredReport)
    assert (again.state, again.id != report_id) == (store.RUNNING, True)


def test_what_no_attempt_can_mend_fails_the_report_at_once(
    ask: Callable[..., tuple[str, str]], run: Callable[..., None], reports: Callable[..., Reports], sql: Sql
) -> None:
    customer, report_id = ask()
    run(report_id, too_large)
    found = reports().stored(customer, report_id)
    assert (found.state, found.error) == (store.FAILED, "end_time: the report on this range has 40 MiB")
    assert job_of(sql, report_id)[0] == "DONE"


def test_a_report_whose_job_was_lost_is_given_up_after_a_day_and_in_nobody_s_way(
    ask: Callable[..., tuple[str, str]], reports: Callable[..., Reports], database: Database
) -> None:
    customer, lost = ask()
    # Within a day it is the one that runs.
    assert getattr(reports().get(customer, START, END), "id", "") == lost
    later = now() + DAY + timedelta(minutes=1)
    fresh = reports(lambda: later).get(customer, START, END)
    assert isinstance(fresh, store.StoredReport)
    assert fresh.id != lost

    Upkeep(database, lambda: later, accepted=400 * DAY, reports_kept=7 * DAY).run()
    found = reports().stored(customer, lost)
    assert (found.state, found.error) == (
        store.FAILED,
        "the job that made the report was lost; ask for its range again",
    )
    assert reports().stored(customer, fresh.id).state == store.RUNNING


def test_old_reports_go(
    ask: Callable[..., tuple[str, str]], database: Database, sql: Sql, run: Callable[..., None]
) -> None:
    (_, old), (_, young) = ask(), ask()
    for report_id in (old, young):
        run(report_id)
    sql.execute("UPDATE reports SET created_at = created_at - interval '3 days' WHERE id = %s", [old])
    listed = "SELECT id FROM reports WHERE id = ANY(%s) ORDER BY created_at"
    for kept, left in ((4, [(old,), (young,)]), (2, [(young,)])):
        Upkeep(database, now, accepted=400 * DAY, reports_kept=kept * DAY).run()
        assert sql.execute(listed, [[old, young]]).fetchall() == left


def test_a_customer_has_ten_reports_made_at_a_time_and_lost_ones_do_not_count(
    client: Client, reports: Callable[..., Reports]
) -> None:
    customer = client.put_customer()
    for number in range(10):
        reports().get(customer, START + number * DAY, END)
    # One that runs is no further one.
    reports().get(customer, START, END)
    with pytest.raises(TooManyReports, match=r"10 reports on .* are being made"):
        reports().get(customer, START + 10 * DAY, END)
    # Others have ten of their own.
    reports().get(client.put_customer(), START + 10 * DAY, END)
    reports(lambda: now() + DAY + timedelta(minutes=1)).get(customer, START + 10 * DAY, END)


def test_a_report_is_written_for_its_own_customer_only(
    ask: Callable[..., tuple[str, str]], client: Client, database: Database, reports: Callable[..., Reports]
) -> None:
    customer, report_id = ask()
    other = client.put_customer()
    with database.transaction() as conn:
        number = customers.number(conn, other)
        assert number is not None
        store.progress(conn, number, report_id, 50)
        store.finish(conn, number, report_id, b"not yours", now())
        store.fail(conn, number, report_id, "not yours", now())
    found = reports().stored(customer, report_id)
    assert (found.state, found.progress, found.error) == (store.RUNNING, 0, "")


def test_a_report_claims_no_more_than_was_counted_when_it_was_asked_for(
    client: Client, make: Callable[[Clock], ReportMaker], database: Database
) -> None:
    """What comes while it waits for the rollup may be missing in it."""
    asked_at = now() + DAY
    readings = iter([asked_at, asked_at + timedelta(seconds=2)])
    customer_id = client.put_customer()
    with database.autocommit() as conn:
        customer = customers.find(conn, customer_id, now())
    assert customer is not None
    found = make(lambda: next(readings, asked_at + timedelta(seconds=3))).make(customer, Period(START, END))
    assert found.compliance.is_complete
    # The place of the rollup is of today, the clock of tomorrow.
    assert found.compliance.as_of == asked_at


def day(value: str, unit: str = "", **group: str) -> pb.MeterReport:
    """A meter on a day, with a group."""
    number = {"value": value}
    groups = [pb.GroupValue(group=group, value=number)] if group else []
    return pb.MeterReport(
        meter="requests", unit=unit, days=[pb.MeterDay(date="2026-11-21", value=number, groups=groups)]
    )


def test_no_text_of_a_table_is_a_formula_and_every_number_stays_one() -> None:
    group = {"a": "=1+1", "b": "+2", "c": "-3", "d": "@x", "e": "\t=1", "f": "\r=1", "g": "h=1", "=i": "j"}
    message = pb.UsageReport(meters=[day("-12.5", "=cmd|' /C calc'!A0", **group)])
    data = as_csv(message).data.decode()
    _, whole, part = csv.reader(io.StringIO(data, newline=""))
    assert whole == ["2026-11-21", "requests", "", "-12.5", "'=cmd|' /C calc'!A0", "", ""]
    assert part[2] == "'=i=j;a='=1+1;b='+2;c='-3;d='@x;e='\t'=1;f='\r'=1;g=h=1"
    assert Decimal(part[3]) == Decimal("-12.5")
    # Everything is quoted: no comma or end of line within a text parts a cell.
    assert data.splitlines()[0] == '"date","meter","group","value","unit","cost","currency"'
    assert '"-12.5"' in data


@pytest.mark.parametrize("separator", [";", "\t"])
def test_no_text_of_a_table_hides_a_formula_behind_what_a_spreadsheet_takes_for_a_separator(separator: str) -> None:
    """Quotes do not help there: what follows the first of them is no separator to such a program, so it reads on."""
    formulas = [f"x{each}=1+1{separator}y" for each in (separator, f"{separator}\t", f'{separator}"', "\n", "\r\n")]
    message = pb.UsageReport(meters=[day("1", unit, a=unit) for unit in formulas])
    data = as_csv(message).data.decode()
    lines = data.replace("\r", "\n").split("\n")
    cells = [cell for row in csv.reader(lines, delimiter=separator) for cell in row]
    assert any(cell.endswith("=1+1") for cell in cells)
    assert [cell for cell in cells if cell.strip().startswith("=")] == []
    # A separator that no formula follows parts nothing that matters; the text stays as it is.
    assert '"a;b"' in as_csv(pb.UsageReport(meters=[day("1", "a;b")])).data.decode()


def test_a_report_that_fits_into_no_answer_is_refused_and_says_what_to_do() -> None:
    # 34 groups of a little more than a MiB.
    message = pb.UsageReport(meters=[day("1", region="x" * (1 << 20)) for _ in range(34)])
    with pytest.raises(InvalidArgument, match="34 MiB, and an answer holds 31 at most; ask for a shorter range"):
        convert.sized(message)
    del message.meters[31:]
    assert convert.sized(message) is message
