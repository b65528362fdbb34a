"""Faults beside ingest: what stalls, sleeps, hangs or goes away, and what is left of the usage afterwards."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import psycopg
import pytest
from eventually import eventually
from frozen import frozen
from google.rpc import error_details_pb2, status_pb2
from json_lines import json_lines
from measured_worker import measured_worker, points
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from psycopg import sql as pg
from usage_harness import Client, event

from meterscope.usage.v1 import event_service_pb2 as events_pb
from services.kit.channel import open_channel
from services.kit.config import KitSettings
from services.kit.embedded import EmbeddedPostgres, start_postgres
from services.kit.settings import read
from services.usage.__main__ import build_server
from services.usage.settings import Settings

Sql = psycopg.Connection[tuple[Any, ...]]

# "Healed within 10 s", and room for a machine that is busy with other things.
HEALED_SECONDS = 15
# A transaction's 5 s and one more; the same room.
TOLD_SECONDS = 9


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """A server of this module's own, to be stopped; it allows prepared transactions, which ours do not."""
    server = start_postgres(tmp_path_factory.mktemp("postgres"), durable=False)
    (server.folder / "postgres" / "local.conf").write_text("max_prepared_transactions = 2\n")
    server.stop()
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def worker(migrated: Settings) -> Iterator[InMemoryMetricReader]:
    """The worker, as what reads its metrics."""
    with measured_worker(migrated) as reader:
        yield reader


@pytest.mark.usefixtures("meters", "worker")
def test_a_stalled_copy_of_ours_is_ended(client: Client, migrated: Settings) -> None:
    """COPY that waits for its client heeds no timeout and no cancel."""
    customer = client.put_customer()
    with psycopg.connect(migrated.database_url, application_name="usage-server") as stalled:
        stalled.execute("SELECT pg_current_xact_id()")
        with pytest.raises(psycopg.OperationalError), stalled.cursor() as cursor:
            statement = pg.SQL("COPY {}.event_keys FROM STDIN").format(pg.Identifier(migrated.database_schema))
            with cursor.copy(statement) as copy:
                copy.write("1\t")
                client.ingest(event(customer))
                started = time.monotonic()
                eventually(lambda: client.total(customer, "requests") == 1, seconds=HEALED_SECONDS)
                print(f"\nhealed after {time.monotonic() - started:.1f} s")
                # The connection is gone; the client notices when it writes again.
                for _ in range(100):
                    copy.write("1\t" * 100_000)


@pytest.mark.usefixtures("meters")
def test_whoever_else_holds_the_rollup_back_is_named_by_a_metric(
    worker: InMemoryMetricReader,
    client: Client,
    migrated: Settings,
    postgres: EmbeddedPostgres,
) -> None:
    """A prepared transaction, and a writer in another database of the same server."""
    customer = client.put_customer()
    with psycopg.connect(migrated.database_url) as preparing:
        preparing.execute("SELECT pg_current_xact_id()")
        preparing.execute("PREPARE TRANSACTION 'left behind'")
    with psycopg.connect(postgres.url(), application_name="nightly") as foreign:
        foreign.execute("SELECT pg_current_xact_id()")
        client.ingest(event(customer))
        database = migrated.database_url.rpartition("/")[2]
        wanted = {(database, "prepared transaction 'left behind'"), ("postgres", "nightly")}
        eventually(lambda: wanted <= held_back(worker).keys())
        assert min(held_back(worker)[each] for each in wanted) >= 7
        assert client.total(customer, "requests") == 0
    with psycopg.connect(migrated.database_url, autocommit=True) as connection:
        connection.execute("ROLLBACK PREPARED 'left behind'")
    eventually(lambda: client.total(customer, "requests") == 1)
    eventually(lambda: not held_back(worker))


def held_back(reader: InMemoryMetricReader) -> dict[tuple[object, object], float]:
    found = points(reader, "billing.rollup.held_back")
    return {(attributes["database"], attributes["application"]): seconds for attributes, seconds in found}


@pytest.mark.usefixtures("meters", "worker")
def test_a_reader_that_keeps_its_snapshot_holds_nothing_back(client: Client, migrated: Settings) -> None:
    customer = client.put_customer()
    with psycopg.connect(migrated.database_url, application_name="report") as reader:
        reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        reader.execute("SELECT 1")
        for sent in range(1, 6):
            client.ingest(event(customer))
            # Complete at once: the question waits for the rollup for 2 s at most.
            eventually(lambda: client.total(customer, "requests") == sent, seconds=5)  # noqa: B023 - called at once


@dataclass
class Sender(threading.Thread):
    """Sends batches until it is told to stop, each until it is acknowledged; keeps what it was told meanwhile."""

    client: Client
    customer: str
    stopping: threading.Event
    acknowledged: int = 0
    refusals: list[grpc.RpcError] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(daemon=True)

    def __hash__(self) -> int:
        return id(self)

    def run(self) -> None:
        while not self.stopping.is_set():
            batch = [event(self.customer, quantities={"bytes": "3"}) for _ in range(20)]
            while True:
                try:
                    response = self.client.ingest(*batch)
                except grpc.RpcError as error:
                    self.refusals.append(error)
                    time.sleep(0.05)
                    continue
                assert response.accepted + response.duplicate == 20
                self.acknowledged += 20
                break


@pytest.mark.usefixtures("meters", "worker")
def test_while_postgresql_is_away_callers_are_told_to_come_back_and_nothing_acknowledged_is_lost(
    client: Client, postgres: EmbeddedPostgres
) -> None:
    """Away for 3 s here; `python -m bench.outage` has it away for 30."""
    customer = client.put_customer()
    stopping = threading.Event()
    senders = [Sender(client, customer, stopping) for _ in range(4)]
    for sender in senders:
        sender.start()
    eventually(lambda: all(sender.acknowledged for sender in senders))
    postgres.kill()
    gone = time.monotonic()
    eventually(lambda: all(sender.refusals for sender in senders))
    eventually(lambda: time.monotonic() - gone > 3)
    postgres.start()
    before = {sender: sender.acknowledged for sender in senders}
    eventually(lambda: all(sender.acknowledged > before[sender] for sender in senders))
    stopping.set()
    for sender in senders:
        sender.join(30)
        assert not sender.is_alive()

    refusals = [error for sender in senders for error in sender.refusals]
    assert {error.code() for error in refusals} == {grpc.StatusCode.UNAVAILABLE}
    assert all(retry_seconds(error) > 0 for error in refusals)
    sent = sum(sender.acknowledged for sender in senders)
    eventually(lambda: client.total(customer, "requests") == sent)
    assert client.total(customer, "bytes") == 3 * sent


@pytest.mark.usefixtures("meters", "worker")
def test_while_postgresql_is_frozen_callers_are_told_in_time_and_nothing_acknowledged_is_lost(
    client: Client, migrated: Settings, postgres: EmbeddedPostgres
) -> None:
    """Its processes stand still, and the kernel goes on to acknowledge what is sent to them."""
    customer = client.put_customer()
    server = build_server(migrated)
    with grpc.insecure_channel(f"127.0.0.1:{server.start()}") as channel:
        # Tries nothing again by itself.
        patient = Client.on(channel)
        known, late = event(customer), [event(customer) for _ in range(100)]
        assert patient.outcomes(known) == ["ACCEPTED"]
        patient.total(customer, "requests")
        calls: list[Callable[[], object]] = [
            lambda: patient.events.IngestEvents(events_pb.IngestEventsRequest(events=late), timeout=30),
            lambda: patient.events.GetEvent(
                events_pb.GetEventRequest(customer_id=customer, source=known.source, event_id=known.id), timeout=30
            ),
            lambda: patient.total(customer, "requests"),
        ]
        stopping = threading.Event()
        senders = [Sender(client, customer, stopping) for _ in range(4)]
        for sender in senders:
            sender.start()
        eventually(lambda: all(sender.acknowledged for sender in senders))
        with frozen(postgres), ThreadPoolExecutor(2 * len(calls)) as threads:
            # First over connections that were there; then, when that silence is over, without any.
            for pause in (0, 2):
                time.sleep(pause)
                refusals = list(threads.map(refused, 2 * calls))
                assert {error.code() for error, _ in refusals} == {grpc.StatusCode.UNAVAILABLE}
                assert all(retry_seconds(error) > 0 for error, _ in refusals)
                assert max(seconds for _, seconds in refusals) < TOLD_SECONDS
        before = {sender: sender.acknowledged for sender in senders}
        eventually(lambda: all(sender.acknowledged > before[sender] for sender in senders))
        stopping.set()
        for sender in senders:
            sender.join(30)
            assert not sender.is_alive()
        # What was refused is sent again and counts once, whether it had been stored or not.
        assert eventually(lambda: outcomes(patient, late)) in ({"ACCEPTED"}, {"DUPLICATE"})
        sent = sum(sender.acknowledged for sender in senders) + len(late) + 1
        eventually(lambda: patient.total(customer, "requests") == sent)
    server.stop()


def outcomes(client: Client, batch: Sequence[events_pb.Event]) -> set[str]:
    """What became of a batch; nothing if the service does not reach its database yet."""
    try:
        return set(client.outcomes(*batch))
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.UNAVAILABLE:
            raise
        return set()


def refused(call: Callable[[], object]) -> tuple[grpc.RpcError, float]:
    """The error of a call, and after how many seconds it came."""
    started = time.monotonic()
    with pytest.raises(grpc.RpcError) as error:
        call()
    return error.value, time.monotonic() - started


def retry_seconds(error: grpc.RpcError) -> float:
    """The retry hint of google.rpc.RetryInfo; 0 without."""
    trailers = dict(error.trailing_metadata())  # type: ignore[attr-defined]
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    hint = error_details_pb2.RetryInfo()
    for detail in status.details:
        if detail.Unpack(hint):
            return float(hint.retry_delay.ToTimedelta() / timedelta(seconds=1))
    return 0


@pytest.fixture
def start(environment: Mapping[str, str], postgres: EmbeddedPostgres, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Processes on a database of their own, where no worker of this process holds the lease."""
    with psycopg.connect(postgres.url(), autocommit=True) as connection:
        connection.execute("CREATE DATABASE leases OWNER usage")
    environ = {**os.environ, **environment, "DATABASE_URL": postgres.url("leases", "usage")}
    running: list[subprocess.Popen[bytes]] = []

    def run(*arguments: str) -> tuple[subprocess.Popen[bytes], Path]:
        output = tmp_path / f"{len(running)}.log"
        with output.open("wb") as out:
            command = [sys.executable, "-m", "services.usage", *arguments]
            running.append(subprocess.Popen(command, stdout=out, stderr=out, env=environ))
        return running[-1], output

    yield run
    for process in running:
        process.send_signal(signal.SIGCONT)
        process.terminate()
    for process in running:
        assert process.wait(20) in (0, -9)


def test_a_lease_holder_that_wakes_up_counts_nothing_twice(
    start: Callable[..., Any], postgres: EmbeddedPostgres
) -> None:
    _, output = start("serve", "--migrate")
    address = eventually(
        lambda: next((str(line["address"]) for line in json_lines(output) if line["message"] == "listening"), "")
    )
    workers = {process.pid: process for process, _ in (start("work"), start("work"))}
    with (
        open_channel(address, read(KitSettings, {})) as channel,
        psycopg.connect(postgres.url("leases"), autocommit=True) as sql,
    ):
        client = Client.on(channel)
        client.create_meter("bytes", quantity="bytes")
        customer = client.put_customer()
        stopping = threading.Event()
        sender = Sender(client, customer, stopping)
        sender.start()
        for _ in range(2):
            asleep = eventually(lambda: holder(sql, workers.keys()))
            os.kill(asleep, signal.SIGSTOP)
            other = next(pid for pid in workers if pid != asleep)
            eventually(lambda: holder(sql, {other}), seconds=30)  # noqa: B023 - called at once
            before = sender.acknowledged
            eventually(lambda: client.total(customer, "bytes") >= 3 * before)  # noqa: B023
            os.kill(asleep, signal.SIGCONT)
            # It goes on where it was stopped, with the other at work.
            awake = sender.acknowledged
            eventually(lambda: client.total(customer, "bytes") >= 3 * (awake + 200))  # noqa: B023
        stopping.set()
        sender.join(30)
        assert sender.refusals == []
        eventually(lambda: client.total(customer, "bytes") == 3 * sender.acknowledged)
        (row,) = sql.execute("SELECT sum(count), sum(sum) FROM usage.period_totals").fetchall()
        assert row == (sender.acknowledged, 3 * sender.acknowledged)


def holder(sql: Sql, pids: Any) -> int:
    """The process that holds the rollup's lease now, if it is one of these; else 0."""
    query = "SELECT holder FROM usage.leases WHERE name = 'rollup' AND expires_at > clock_timestamp()"
    found = [str(name) for (name,) in sql.execute(query).fetchall()]
    return next((pid for pid in pids for name in found if f"-{pid}_" in name), 0)
