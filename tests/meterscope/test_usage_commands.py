"""`meterscope usage | meters | limits | import events`, typed as a user would, against the real usage service."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Thread

import pytest
from click.testing import CliRunner, Result
from eventually import eventually

from gateway.server import Server as Gateway
from gateway.settings import Settings as GatewaySettings
from meterscope.cli import main
from meterscope.connection import open_channel
from meterscope.usage.v1 import limit_service_pb2 as limits_pb
from meterscope.usage.v1 import limit_service_pb2_grpc
from services.kit.migrate import migrate
from services.kit.settings import read
from services.usage.__main__ import MIGRATIONS, build_server, build_worker
from services.usage.settings import Settings

ACME = "cus_acme"
BASE = datetime.now(UTC).replace(hour=20, minute=0, second=0, microsecond=0) - timedelta(days=30)
Meterscope = Callable[..., Result]


@pytest.fixture(scope="module")
def usage(database_url: str, redis_url: str) -> Iterator[str]:
    """The usage service with its worker; gives the address."""
    settings = read(
        Settings,
        {
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_url,
            "METERSCOPE_USAGE_ADDRESS": "127.0.0.1:0",
            "METERSCOPE_USAGE_WORKER_ADDRESS": "127.0.0.1:0",
            "METERSCOPE_ALERTS_ADDRESS": "127.0.0.1:1",
            "METERSCOPE_ENVIRONMENT": "test",
        },
    )
    migrate(settings.database_url, settings.database_schema, MIGRATIONS, "usage")
    server, worker = build_server(settings), build_worker(settings, lease=timedelta(seconds=1))
    address = f"127.0.0.1:{server.start()}"
    worker.start()
    with open_channel(address) as channel:
        request = limits_pb.PutEntitlementsRequest(
            customer_id=ACME,
            customer_keys=["acme"],
            revision=1,
            time_zone="Asia/Kolkata",
            request_id="1",
            has_plan=True,
        )
        limit = request.limits.add(meter="requests", kind=limits_pb.LIMIT_KIND_HARD)
        limit.limit.value = "5"
        limit_service_pb2_grpc.LimitServiceStub(channel).PutEntitlements(request)
    yield address
    worker.stop()
    server.stop()


@pytest.fixture(scope="module")
def gateway(usage: str) -> Iterator[str]:
    """A gateway in front of it; gives the address."""
    others = {f"METERSCOPE_{name}_ADDRESS": "127.0.0.1:1" for name in ("BILLING", "PAYMENTS", "ALERTS")}
    settings = read(
        GatewaySettings,
        {"METERSCOPE_GATEWAY_ADDRESS": "127.0.0.1:0", "METERSCOPE_USAGE_ADDRESS": usage, **others},
    )
    server = Gateway(settings)
    thread = Thread(target=server.run)
    thread.start()
    yield f"127.0.0.1:{server.port}"
    server.stop()
    thread.join()


@pytest.fixture(scope="module")
def run(usage: str) -> Meterscope:
    def invoke(*arguments: str, address: str = usage) -> Result:
        return CliRunner().invoke(main, [*arguments, "--usage", address], env={"COLUMNS": "80"})

    return invoke


@pytest.fixture(scope="module")
def meters(run: Meterscope) -> None:
    by_region = ["--group-by", "region"]
    assert run("meters", "create", "requests", "--event-type", "http.request", "--unit", "requests").exit_code == 0
    created = run(
        *("meters", "create", "bytes", "--event-type", "http.request", "--aggregation", "sum", "--quantity", "bytes"),
        *("--unit", "By", "--filter", "status in 200, 304", "--filter", "bytes_kind exists", "--filter", "ms>=1.5"),
        *by_region,
    )
    assert created.exit_code == 0, created.output


def day(number: int) -> str:
    """20:00 UTC of a day of the last month."""
    return f"{BASE + timedelta(days=number):%Y-%m-%dT%H:%M:%SZ}"


def cloud(number: int, **given: object) -> str:
    fields = {"specversion": "1.0", "id": f"e{number}", "source": "web", "type": "http.request", "subject": "acme"}
    return json.dumps(fields | {"time": day(number)} | given)


def import_events(gateway: str, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["import", "events", *arguments, "--gateway", gateway])


@pytest.mark.usefixtures("meters")
def test_a_meter_is_made_listed_and_shown(run: Meterscope) -> None:
    listed = run("meters", "list")
    assert "count of http.request" in listed.stdout
    assert max(len(line) for line in listed.stdout.splitlines()) <= 80
    shown = run("meters", "show", "bytes", "--json")
    meter = json.loads(shown.stdout)
    assert (meter["aggregation"], meter["quantity"], meter["group_by"]) == ("SUM", "bytes", ["region"])
    assert meter["filters"] == [
        {"attribute": "status", "operator": "IN", "values": ["200", "304"]},
        {"attribute": "bytes_kind", "operator": "EXISTS", "values": []},
        {"attribute": "ms", "operator": "GREATER_OR_EQUAL", "values": ["1.5"]},
    ]
    words = " ".join(run("meters", "show", "bytes").stdout.split())
    assert "if status in 200,304 and bytes_kind exists and ms>=1.5, by region" in words


def test_a_meter_is_archived_once_and_stays_archived(run: Meterscope) -> None:
    assert run("meters", "create", "old", "--event-type", "other").exit_code == 0
    first, again = (json.loads(run("meters", "archive", "old", "--json").stdout) for _ in range(2))
    assert first["archive_time"] == again["archive_time"] is not None
    assert any("old" in line and "archived" in line for line in run("meters", "list").stdout.splitlines())
    assert run("meters", "archive", "nothing").exit_code == 1


def test_what_people_see_of_a_meter_is_changed_and_the_rest_stays(run: Meterscope) -> None:
    of_bytes = ("--unit", "By", "--description", "first", "--json")
    created = json.loads(run("meters", "create", "shown", "--event-type", "other", *of_bytes).stdout)

    renamed = json.loads(run("meters", "update", "shown", "--description", "second", "--json").stdout)
    assert renamed == created | {"description": "second"}
    words = " ".join(run("meters", "update", "shown", "--unit", "requests").stdout.split())
    assert "unit requests description second" in words
    # Nothing is something else than not given.
    assert json.loads(run("meters", "update", "shown", "--unit", "", "--json").stdout)["unit"] == ""

    nothing = run("meters", "update", "shown")
    assert (nothing.exit_code, "give --unit, --description or both" in nothing.stderr) == (2, True)
    long = run("meters", "update", "shown", "--unit", "x" * 65)
    assert (long.exit_code, "unit" in long.stderr) == (1, True)
    assert run("meters", "update", "nothing", "--unit", "By").exit_code == 1


def test_a_meter_is_recounted_with_what_was_stored_before_it(run: Meterscope, gateway: str, tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    assert run("meters", "create", "first", "--event-type", "recounted").exit_code == 0
    file.write_text("".join(f"{cloud(n, id=f'recounted-{n}', type='recounted')}\n" for n in range(3)))
    assert import_events(gateway, str(file)).exit_code == 0
    assert run("meters", "create", "second", "--event-type", "recounted").exit_code == 0

    def total() -> str:
        asked = ("usage", ACME, "second", "--start", day(0)[:10], "--window", "total", "--json")
        found: str = json.loads(run(*asked).stdout)["total"]
        return found

    assert total() == "0"
    # Days 0, 1 and 2 have an event each; day 1 on has two of them.
    waited = run("meters", "recount", "second", "--from", day(1)[:10], "--wait", "--json")
    assert waited.exit_code == 0, waited.output
    recounted = json.loads(waited.stdout)
    assert recounted["count_from"] == f"{day(1)[:10]}T00:00:00Z"
    assert (recounted["recount"]["state"], total()) == ("DONE", "2")
    # Again it is the same; it says that it began, or is through already.
    begun = run("meters", "recount", "second")
    assert (begun.exit_code, "recount" in begun.stdout) == (0, True)
    eventually(lambda: " done at " in " ".join(run("meters", "show", "second").stdout.split()))
    assert total() == "2"

    other = run("meters", "recount", "second", "--from", day(0)[:10])
    assert (other.exit_code, other.stdout) == (1, "")
    assert "count_from: the meter counts from" in other.stderr
    assert run("meters", "recount", "second", "--from", "yesterday").exit_code == 2
    assert run("meters", "recount", "nothing", "--wait").exit_code == 1


@pytest.mark.usefixtures("meters")
def test_what_the_service_refuses_is_an_error_of_the_command(run: Meterscope) -> None:
    again = run("meters", "create", "requests", "--event-type", "other")
    assert (again.exit_code, again.stdout) == (1, "")
    assert "requests" in again.stderr
    assert run("meters", "show", "nothing").exit_code == 1
    assert run("usage", "cus_nobody", "requests").exit_code == 1
    assert run("limits", "cus_nobody").exit_code == 1
    assert run("usage", ACME, "requests", "--start", "yesterday").exit_code == 2
    assert run("usage", ACME, "requests", "--time-zone", "Mars/X").exit_code == 2
    assert run("limits", ACME, "--check", "requests", "--quantity", "x").exit_code == 2


@pytest.mark.usefixtures("meters")
def test_events_are_imported_once_and_their_faults_told_by_line(run: Meterscope, gateway: str, tmp_path: Path) -> None:
    data = {"status": "200", "bytes_kind": "sent", "ms": "2", "bytes": 0}
    lines = [
        cloud(1, data=data, region="eu").replace('"bytes": 0', '"bytes": 0.10'),
        cloud(2, data=data, region="us").replace('"bytes": 0', '"bytes": 1234567890123456.789012345678'),
        json.dumps(
            {
                "id": "e3", "source": "web", "type": "http.request", "customer_key": "acme",
                "time": day(3), "quantities": {"bytes": "5"}, "attributes": {"status": "500"},
            }
        ),
        "",
        "broken",
        '{"id": "a", "id": "b"}',
        "[1]",
        cloud(8, time=None),
        cloud(9, id=None),
        '{"id": "e10", "sorce": "web"}',
        cloud(1, data={"bytes": 7}),
        cloud(12, subject="nobody"),
    ]  # fmt: skip
    file = tmp_path / "events.jsonl"
    file.write_text("\n".join(lines))
    first = import_events(gateway, str(file), "--json")
    report = json.loads(first.stdout)
    assert first.exit_code == 3
    counts = {name: report[name] for name in ("lines", "accepted", "duplicate", "quarantined", "conflict", "rejected")}
    assert counts == {"lines": 11, "accepted": 3, "duplicate": 0, "quarantined": 1, "conflict": 1, "rejected": 6}
    assert [(each["line"], each["reason"], each["field"]) for each in report["problems"]] == [
        (5, "INVALID_JSON", ""),
        (6, "INVALID_JSON", ""),
        (7, "WRONG_TYPE", ""),
        (8, "MISSING", "time"),
        (9, "MISSING", "id"),
        (10, "UNKNOWN_FIELD", "sorce"),
        (11, "OTHER_CONTENT", "id"),
    ]
    second = json.loads(import_events(gateway, str(file), "--json").stdout)
    assert (second["accepted"], second["duplicate"]) == (0, 3)
    told = import_events(gateway, str(file))
    assert "events.jsonl:10: sorce: UNKNOWN_FIELD: there is no such field; did you mean `source`?" in told.stdout

    # 20:00 in UTC is 01:30 of the next day in India.
    asked = ("usage", ACME, "bytes", "--start", day(0), "--end", day(20), "--time-zone", "Asia/Kolkata")
    answer = json.loads(run(*asked, "--group-by", "region", "--json").stdout)
    assert [(each["start_time"], each["group"], each["value"]) for each in answer["windows"]] == [
        (day(1).replace("T20:00", "T18:30"), {"region": "eu"}, "0.1"),
        (day(2).replace("T20:00", "T18:30"), {"region": "us"}, "1234567890123456.789012345678"),
    ]
    shown = run(*asked, "--group-by", "region").stdout
    assert f"│ {BASE + timedelta(days=2):%Y-%m-%d %a} │ eu     │" in shown
    assert "1,234,567,890,123,456.889012345678" in shown
    only = json.loads(run(*asked, "--only", "region=eu", "--json").stdout)
    assert only["total"] == "0.1"


@pytest.mark.usefixtures("meters")
def test_limits_are_shown_and_checked(run: Meterscope) -> None:
    shown = run("limits", ACME)
    assert (shown.exit_code, "hard" in shown.stdout) == (0, True)
    eventually(lambda: run("limits", ACME, "--check", "requests", "--quantity", "5").exit_code in {0, 3})
    refused = run("limits", ACME, "--check", "requests", "--quantity", "6")
    assert refused.exit_code == 3
    assert "refused: 6 more of requests" in refused.stdout
    content = json.loads(run("limits", ACME, "--check", "requests", "--quantity", "6", "--json").stdout)
    assert (content["allowed"], content["limit"], content["kind"]) == (False, "5", "HARD")


def test_a_service_that_is_away_is_named(run: Meterscope) -> None:
    away = run("limits", ACME, "--check", "requests", address="127.0.0.1:1")
    assert (away.exit_code, "usage at 127.0.0.1:1 does not answer" in away.stderr) == (1, True)
