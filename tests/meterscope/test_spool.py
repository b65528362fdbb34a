"""The spool on disk: what a crash leaves, the bound, the lock; and the client that fills and empties it."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from eventually import eventually
from fake_usage import Failure, RunningUsage

from meterscope import (
    AsyncClient,
    Client,
    Event,
    Outcome,
    QueueFull,
    Result,
    SpoolBusy,
    SpoolDamaged,
    SpoolFull,
    Undelivered,
)
from meterscope.client.spool import LEAST_BYTES, Spool
from meterscope.usage.v1 import event_service_pb2 as pb

StartUsage = Callable[..., RunningUsage]
NOW = datetime(2026, 10, 1, 12, 0, tzinfo=UTC)
SOON = timedelta(milliseconds=200)
MIB = 1 << 20


def message(number: int, size: int = 0) -> pb.Event:
    return pb.Event(id=f"e{number}", source="test", type="t", customer_key="a", attributes={"x": "y" * size})


def event(number: int, size: int = 0) -> Event:
    return Event(type="t", customer_key="acme", source="test", id=f"e{number}", time=NOW, attributes={"x": "y" * size})


def drained(spool: Spool) -> list[str]:
    found = []
    while not spool.is_empty:
        found += [each.id for each in spool.head()]
        spool.remove()
    return found


def stop(usage: RunningUsage) -> None:
    usage.server.stop(None).wait(5)


def test_batches_come_back_in_their_order_also_after_a_restart(tmp_path: Path) -> None:
    spool = Spool(tmp_path, max_bytes=MIB)
    for number in range(0, 10, 2):
        spool.append([message(number), message(number + 1)])
    assert (spool.events, [each.id for each in spool.head()]) == (10, ["e0", "e1"])
    spool.remove()
    spool.close()
    again = Spool(tmp_path, max_bytes=MIB)
    assert again.events == 8
    again.append([message(10)])
    assert drained(again) == [f"e{number}" for number in range(2, 11)]
    again.close()
    empty = Spool(tmp_path, max_bytes=MIB)
    assert (empty.is_empty, empty.size, list(tmp_path.glob("*.spool"))) == (True, 0, [])
    empty.append([message(11)])
    empty.close()
    assert drained(Spool(tmp_path, max_bytes=MIB)) == ["e11"]


def test_delivered_segments_are_deleted_so_that_their_room_comes_back(tmp_path: Path) -> None:
    # Segments of an eighth of 64 KiB: one batch of 5,000 bytes fits in each; 13 batches (65,000 bytes) fit in all.
    spool = Spool(tmp_path, max_bytes=LEAST_BYTES)
    stored = 0
    with pytest.raises(SpoolFull, match="of at most 65,536 bytes"):
        while True:
            spool.append([message(stored, 4_950)])
            stored += 1
    assert stored == 13
    assert spool.size <= LEAST_BYTES
    spool.remove()
    spool.append([message(stored, 4_950)])
    assert drained(spool) == [f"e{number}" for number in range(1, 14)]


@pytest.mark.parametrize("cut", [1, 5, 30])
def test_a_record_that_a_crash_cut_off_is_cut_away(tmp_path: Path, cut: int) -> None:
    spool = Spool(tmp_path, max_bytes=MIB)
    spool.append([message(1)])
    whole = spool.size
    spool.append([message(2)])
    spool.close()
    (segment,) = tmp_path.glob("*.spool")
    os.truncate(segment, whole + cut)
    again = Spool(tmp_path, max_bytes=MIB)
    assert again.size == whole
    again.append([message(3)])
    assert drained(again) == ["e1", "e3"]


def test_a_last_record_whose_content_never_reached_the_disk_is_cut_away(tmp_path: Path) -> None:
    spool = Spool(tmp_path, max_bytes=MIB)
    spool.append([message(1)])
    whole = spool.size
    spool.append([message(2)])
    spool.close()
    (segment,) = tmp_path.glob("*.spool")
    data = segment.read_bytes()
    segment.write_bytes(data[: whole + 20] + b"\0" * (len(data) - whole - 20))
    assert drained(Spool(tmp_path, max_bytes=MIB)) == ["e1"]


def test_damage_elsewhere_is_told_and_nothing_is_thrown_away(tmp_path: Path) -> None:
    spool = Spool(tmp_path, max_bytes=MIB)
    spool.append([message(1)])
    spool.append([message(2)])
    spool.close()
    (segment,) = tmp_path.glob("*.spool")
    data = bytearray(segment.read_bytes())
    data[20] ^= 1
    segment.write_bytes(data)
    with pytest.raises(SpoolDamaged, match="damaged at byte 0"):
        Spool(tmp_path, max_bytes=MIB)
    assert segment.read_bytes() == data
    segment.unlink()
    assert Spool(tmp_path, max_bytes=MIB).is_empty


def test_what_is_stored_after_a_damaged_file_was_moved_away_outlives_a_restart(tmp_path: Path) -> None:
    spool = Spool(tmp_path, max_bytes=MIB)
    spool.append([message(1)])
    spool.append([message(2)])
    spool.remove()
    spool.close()
    # The position lies within this file: nothing that comes later may be taken for what it says is acknowledged.
    (segment,) = tmp_path.glob("*.spool")
    segment.rename(tmp_path / "damaged")
    after = Spool(tmp_path, max_bytes=MIB)
    after.append([message(3)])
    after.append([message(4)])
    after.close()
    assert drained(Spool(tmp_path, max_bytes=MIB)) == ["e3", "e4"]


def test_a_position_that_was_lost_sends_again(tmp_path: Path) -> None:
    spool = Spool(tmp_path, max_bytes=MIB)
    spool.append([message(1)])
    spool.append([message(2)])
    spool.remove()
    spool.close()
    (tmp_path / "position").write_bytes(b"")
    assert drained(Spool(tmp_path, max_bytes=MIB)) == ["e1", "e2"]


def test_a_full_disk_leaves_the_spool_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(tmp_path, max_bytes=MIB)
    spool.append([message(1)])
    real, calls = os.write, 0

    def fill(descriptor: int, data: bytes) -> int:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise OSError(28, "No space left on device")
        return real(descriptor, data[:7])

    monkeypatch.setattr(os, "write", fill)
    with pytest.raises(OSError, match="No space"):
        spool.append([message(2)])
    monkeypatch.undo()
    spool.append([message(3)])
    spool.close()
    assert drained(Spool(tmp_path, max_bytes=MIB)) == ["e1", "e3"]


def test_one_client_at_a_time_has_a_folder(tmp_path: Path) -> None:
    first = Client("127.0.0.1:1", source="s", spool=tmp_path)
    with pytest.raises(SpoolBusy, match="in use by another client"):
        Client("127.0.0.1:1", source="s", spool=tmp_path)
    first.close()
    Client("127.0.0.1:1", source="s", spool=tmp_path).close()


def test_the_bound_of_a_spool_is_checked() -> None:
    with pytest.raises(ValueError, match="choose at least 65,536"):
        Client(spool="x", max_spool_bytes=1)


def test_what_cannot_be_sent_is_spooled_and_sent_later_in_order(start_usage: StartUsage, tmp_path: Path) -> None:
    usage = start_usage()
    stop(usage)
    results: list[Result] = []
    with Client(
        usage.address, spool=tmp_path, spool_after=SOON, max_batch_events=2, on_results=results.extend
    ) as client:
        for number in range(10):
            client.enqueue(event(number))
        eventually(lambda: client.spooled == 10)
        revived = start_usage(address=usage.address)
        client.enqueue(event(10))
        client.flush(timedelta(seconds=20))
        assert client.spooled == 0
    order = [sent.id for call in revived.servicer.calls for sent in call.events]
    assert list(dict.fromkeys(order)) == [f"e{number}" for number in range(11)]
    assert [result.event.id for result in results] == [f"e{number}" for number in range(11)]
    assert results[0].event == event(0)


def test_the_next_client_sends_what_the_last_one_left(start_usage: StartUsage, tmp_path: Path) -> None:
    usage = start_usage()
    stop(usage)
    client = Client(usage.address, spool=tmp_path, spool_after=SOON)
    client.enqueue(event(1))
    started = time.monotonic()
    client.close()
    assert time.monotonic() - started < 10
    revived = start_usage(address=usage.address)
    with Client(usage.address, spool=tmp_path) as heir:
        heir.flush(timedelta(seconds=20))
    assert [key[2] for key in revived.servicer.stored] == ["e1"]


def test_a_full_spool_refuses_further_events_and_loses_none(start_usage: StartUsage, tmp_path: Path) -> None:
    usage = start_usage()
    stop(usage)
    client = Client(usage.address, spool=tmp_path, spool_after=SOON, max_spool_bytes=LEAST_BYTES, max_batch_events=1)
    client.enqueue(event(0, 5_000))
    eventually(lambda: client.spooled == 1)
    taken = 1
    with pytest.raises(SpoolFull, match="the event was not taken") as refused:
        while True:
            client.enqueue(event(taken, 5_000))
            taken += 1
    assert isinstance(refused.value, QueueFull)
    # 12 events of some 5,060 bytes fit into 65,536; one that is on its way there counts twice for a moment.
    assert taken in {11, 12}
    eventually(lambda: client.spooled == taken)
    revived = start_usage(address=usage.address)
    client.flush(timedelta(seconds=20))
    client.enqueue(event(taken, 5_000))
    client.close()
    assert {key[2] for key in revived.servicer.stored} == {f"e{number}" for number in range(taken + 1)}


def test_what_finds_no_room_in_the_spool_comes_back_at_the_close(start_usage: StartUsage, tmp_path: Path) -> None:
    usage = start_usage()
    stop(usage)
    client = Client(
        usage.address, spool=tmp_path, spool_after=timedelta(seconds=2), max_spool_bytes=LEAST_BYTES, max_batch_events=1
    )
    # All are taken before the first one is spooled.
    for number in range(20):
        client.enqueue(event(number, 5_000))
    with pytest.raises(Undelivered) as raised:
        client.close(timedelta(seconds=5))
    left = [each.id for each in raised.value.events]
    spooled = drained(Spool(tmp_path, max_bytes=LEAST_BYTES))
    assert spooled + left == [f"e{number}" for number in range(20)]
    assert spooled


def test_the_servers_wish_for_quiet_holds_for_the_spool_too(start_usage: StartUsage, tmp_path: Path) -> None:
    usage = start_usage(Failure(grpc.StatusCode.UNAVAILABLE, retry_after=0.9))
    started = time.monotonic()
    with Client(usage.address, spool=tmp_path, spool_after=SOON) as client:
        client.enqueue(event(1))
        client.flush(timedelta(seconds=20))
    assert time.monotonic() - started >= 0.9
    assert len(usage.servicer.calls) == 2


def test_what_the_server_refuses_for_good_is_not_spooled(start_usage: StartUsage, tmp_path: Path) -> None:
    usage = start_usage(Failure(grpc.StatusCode.PERMISSION_DENIED))
    client = Client(usage.address, spool=tmp_path)
    client.enqueue(event(1))
    with pytest.raises(Undelivered, match="PERMISSION_DENIED") as raised:
        client.close()
    assert raised.value.events == (event(1),)


@pytest.mark.parametrize("code", [grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED])
def test_a_spooled_batch_that_is_refused_for_good_is_put_by_and_the_others_go_on(
    start_usage: StartUsage, tmp_path: Path, caplog: pytest.LogCaptureFixture, code: grpc.StatusCode
) -> None:
    fill_spool(tmp_path)
    usage = start_usage(Failure(grpc.StatusCode.OK), Failure(code))
    with Client(usage.address, spool=tmp_path) as client:
        client.flush(timedelta(seconds=20))
        assert client.counts == {Outcome.ACCEPTED: 4}
    assert [key[2] for key in usage.servicer.stored] == ["e0", "e1", "e4", "e5"]
    check_refused(tmp_path, code)
    (warning,) = [record.message for record in caplog.records if "refused" in record.message]
    assert "2 events not acknowledged" in warning


def fill_spool(folder: Path) -> None:
    """Three batches of two events each."""
    spool = Spool(folder, max_bytes=MIB)
    for number in range(0, 6, 2):
        batch = [message(number), message(number + 1)]
        for each in batch:
            each.time.FromDatetime(NOW)
            each.quantities["bytes"].value = "12.50"
        spool.append(batch)
    spool.close()


def check_refused(folder: Path, code: grpc.StatusCode) -> None:
    """The second of those batches, as `meterscope import events` takes it, and why."""
    events, reason = sorted((folder / "refused").iterdir())
    assert reason.read_text() == f"2 events not acknowledged: {code.name}: made to fail\n"
    assert [json.loads(line) for line in events.read_text().splitlines()] == [
        {
            "id": name,
            "source": "test",
            "type": "t",
            "customer_key": "a",
            "time": "2026-10-01T12:00:00Z",
            "quantities": {"bytes": "12.50"},
            "attributes": {"x": ""},
        }
        for name in ("e2", "e3")
    ]
    assert Spool(folder, max_bytes=MIB).is_empty


def test_a_wrong_token_leaves_the_spool_as_it_is(start_usage: StartUsage, tmp_path: Path) -> None:
    fill_spool(tmp_path)
    usage = start_usage(Failure(grpc.StatusCode.UNAUTHENTICATED))
    with Client(usage.address, spool=tmp_path) as client:
        client.flush(timedelta(seconds=20))
    assert [key[2] for key in usage.servicer.stored] == [f"e{number}" for number in range(6)]
    assert not (tmp_path / "refused").exists()


def test_a_killed_process_leaves_its_spool_to_the_next_one(start_usage: StartUsage, tmp_path: Path) -> None:
    usage = start_usage()
    stop(usage)
    program = f"""
        import sys, time
        from datetime import timedelta
        from meterscope import Client, Event
        client = Client({usage.address!r}, source="s", spool={str(tmp_path)!r}, spool_after=timedelta(0), max_batch_events=1)
        for number in range(100000):
            client.enqueue(Event(type="t", customer_key="a", id=f"e{{number}}"))
            if number % 100 == 0:
                print(client.spooled, flush=True)
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE) as process:
        assert process.stdout
        seen = 0
        while seen < 200:
            seen = int(process.stdout.readline())
        with pytest.raises(SpoolBusy):
            Spool(tmp_path, max_bytes=256 * MIB)
        process.send_signal(signal.SIGKILL)
    revived = start_usage(address=usage.address)
    with Client(usage.address, spool=tmp_path, spool_after=SOON) as heir:
        count = heir.spooled
        heir.flush(timedelta(seconds=30))
    # What was said to be spooled is there, without a gap.
    assert count >= seen
    assert [key[2] for key in revived.servicer.stored] == [f"e{number}" for number in range(count)]


def test_threads_and_an_outage_lose_nothing(start_usage: StartUsage, tmp_path: Path) -> None:
    usage = start_usage()
    with Client(usage.address, spool=tmp_path, spool_after=timedelta(0), max_batch_events=7) as client:

        def state(first: int) -> None:
            for number in range(first, first + 500):
                client.enqueue(event(number))
                time.sleep(0.0005)

        threads = [threading.Thread(target=state, args=(first,)) for first in (0, 1000, 2000)]
        for thread in threads:
            thread.start()
        time.sleep(0.1)
        stop(usage)
        eventually(lambda: client.spooled > 0)
        revived = start_usage(address=usage.address)
        for thread in threads:
            thread.join()
        client.flush(timedelta(seconds=20))
    stored = {key[2] for key in usage.servicer.stored} | {key[2] for key in revived.servicer.stored}
    assert stored == {f"e{number}" for first in (0, 1000, 2000) for number in range(first, first + 500)}


def test_the_asyncio_client_spools_as_well(start_usage: StartUsage, tmp_path: Path) -> None:
    usage = start_usage()
    stop(usage)

    async def run() -> list[str]:
        async with AsyncClient(usage.address, spool=tmp_path, spool_after=SOON, max_batch_events=2) as client:
            for number in range(10):
                await client.enqueue(event(number))
            while client.spooled < 10:  # noqa: ASYNC110 - of a thread's making
                await asyncio.sleep(0.01)
            revived = start_usage(address=usage.address)
            await client.flush(timedelta(seconds=20))
        return [sent.id for call in revived.servicer.calls for sent in call.events]

    order = asyncio.run(run())
    assert list(dict.fromkeys(order)) == [f"e{number}" for number in range(10)]


def test_the_asyncio_client_puts_by_what_is_refused_for_good_as_well(start_usage: StartUsage, tmp_path: Path) -> None:
    fill_spool(tmp_path)
    usage = start_usage(Failure(grpc.StatusCode.OK), Failure(grpc.StatusCode.INVALID_ARGUMENT))

    async def run() -> None:
        async with AsyncClient(usage.address, spool=tmp_path) as client:
            await client.flush(timedelta(seconds=20))

    asyncio.run(run())
    assert [key[2] for key in usage.servicer.stored] == ["e0", "e1", "e4", "e5"]
    check_refused(tmp_path, grpc.StatusCode.INVALID_ARGUMENT)
