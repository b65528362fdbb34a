"""What a process says of itself and its machine."""

import gc
import os
import resource
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from services.kit.runtime import Runtime
from tests.kit.measured import points


@pytest.fixture
def reader(tmp_path: Path) -> InMemoryMetricReader:
    reader = InMemoryMetricReader()
    Runtime(tmp_path).observe(MeterProvider([reader]).get_meter("test"))
    return reader


def values(reader: InMemoryMetricReader, name: str) -> dict[str, float]:
    """By the first label's value, which is empty where there is none."""
    return {next(iter(labels.values()), ""): value for labels, value in read(reader, name)}


def read(reader: InMemoryMetricReader, name: str) -> list[tuple[dict[str, Any], float]]:
    found = points(reader.get_metrics_data(), name, {})
    return [(dict(point.attributes or {}), point.value) for point in found]


def test_processor_time_is_that_of_the_process(reader: InMemoryMetricReader) -> None:
    sum(range(5_000_000))
    times = values(reader, "process.cpu.time")
    used = resource.getrusage(resource.RUSAGE_SELF)
    # Both are counted in ticks of 10 ms; the second reading is the later one.
    assert 0 < times["user"] <= used.ru_utime + 0.02
    assert 0 <= times["system"] <= used.ru_stime + 0.02


def test_shares_of_time_are_shares(reader: InMemoryMetricReader) -> None:
    sum(range(5_000_000))
    ((_, share),) = read(reader, "process.cpu.utilization")
    assert 0 < share <= 1
    sum(range(5_000_000))
    machine = values(reader, "system.cpu.utilization")
    assert set(machine) == {"user", "system", "idle", "wait", "other"}
    assert sum(machine.values()) == pytest.approx(1)


def test_memory_grows_with_what_is_held(reader: InMemoryMetricReader) -> None:
    before = values(reader, "process.memory.usage")[""]
    held = os.urandom(64_000_000)
    after = values(reader, "process.memory.usage")[""]
    assert after - before > len(held) / 2
    share = values(reader, "process.memory.utilization")[""]
    # A container may have less than the machine, never more.
    assert after / psutil.virtual_memory().total / 2 < share <= 1
    machine = values(reader, "system.memory.utilization")
    assert sum(machine.values()) == pytest.approx(1)


def test_threads_and_open_files_are_counted(reader: InMemoryMetricReader, tmp_path: Path) -> None:
    def counted() -> tuple[float, float]:
        threads, files = (
            values(reader, name)[""] for name in ("process.thread.count", "process.unix.file_descriptor.count")
        )
        return threads, files

    stop = threading.Event()
    threads = [threading.Thread(target=stop.wait) for _ in range(40)]
    before = counted()
    for thread in threads:
        thread.start()
    with ExitStack() as opened:
        for number in range(40):
            opened.enter_context((tmp_path / str(number)).open("w"))
        after = counted()
    stop.set()
    for thread in threads:
        thread.join()
    # Other tests' threads may end meanwhile, with their connections, or connect anew.
    assert 20 < after[0] - before[0] < 60
    assert 20 < after[1] - before[1] < 60


def test_runs_of_the_garbage_collector_are_counted(reader: InMemoryMetricReader) -> None:
    before = values(reader, "cpython.gc.collections")
    gc.collect()
    after = values(reader, "cpython.gc.collections")
    assert after["2"] == before["2"] + 1


def test_the_data_folders_disk_is_measured(reader: InMemoryMetricReader, tmp_path: Path) -> None:
    ((labels, used),) = read(reader, "system.filesystem.utilization")
    assert tmp_path.is_relative_to(labels["mountpoint"])
    assert os.path.ismount(labels["mountpoint"])
    stats = os.statvfs(tmp_path)
    full = stats.f_blocks - stats.f_bfree
    # Other programs write meanwhile.
    assert used == pytest.approx(full / (full + stats.f_bavail), abs=0.02)
    ((same, free),) = read(reader, "billing.disk.free")
    assert same == labels
    assert free == pytest.approx(stats.f_bavail * stats.f_frsize, rel=0.05)


def test_a_folder_that_is_gone_says_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    reader = InMemoryMetricReader()
    Runtime(folder).observe(MeterProvider([reader]).get_meter("test"))
    folder.rmdir()
    assert read(reader, "billing.disk.free") == []
    assert read(reader, "process.thread.count") != []
