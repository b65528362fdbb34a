import gzip
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from eventually import eventually

from services.kit.log_files import Limits, LogFiles
from services.kit.logs import JsonFormatter

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
DAY = timedelta(days=1)
KINDS = ["combined", "error", "exceptions", "payouts", "rejections"]

# Writes 3,000 lines that say who wrote them, each over 100 bytes, into files of 20,000 bytes.
WRITER = """
import logging, os, sys
from pathlib import Path
from services.kit.log_files import Limits, LogFiles
from services.kit.logs import JsonFormatter

files = LogFiles(Path(sys.argv[1]), sys.argv[2], Limits(bytes=20_000, files=1_000))
files.setFormatter(JsonFormatter({"service": sys.argv[2]}))
for number in range(3_000):
    files.handle(logging.makeLogRecord({"name": "w", "levelname": "INFO", "levelno": 20, "msg": f"{os.getpid()} {number}"}))
    if not number:
        print(os.getpid(), flush=True)
        sys.stdin.readline()
if sys.argv[3] == "killed":
    os.kill(os.getpid(), 9)
files.close()
"""

# Fills a disk (a file may have 4,096 bytes here), then gets room again.
FULL = """
import logging, resource, sys
from pathlib import Path
from services.kit.log_files import Limits, LogFiles
from services.kit.logs import JsonFormatter

files = LogFiles(Path(sys.argv[1]), "usage", Limits())
files.setFormatter(JsonFormatter({}))

def say(text):
    files.handle(logging.makeLogRecord({"name": "w", "levelname": "INFO", "levelno": 20, "msg": text}))

_, most = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (4_096, most))
for number in range(100):
    say(f"line {number}")
print(files.lost)
resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
say("room again")
print(files.lost)
files.close()
"""


@pytest.fixture
def sink(tmp_path: Path) -> Iterator[Callable[..., LogFiles]]:
    opened: list[LogFiles] = []

    def make(folder: Path = tmp_path, service: str = "usage", **limits: Any) -> LogFiles:
        files = LogFiles(folder, service, Limits(**limits))
        files.setFormatter(JsonFormatter({"service": service}))
        opened.append(files)
        return files

    yield make
    for files in opened:
        files.close()


def say(files: LogFiles, message: str, at: datetime = NOON, level: int = logging.INFO, **extra: Any) -> None:
    record = logging.LogRecord("services.usage", level, __file__, 1, message, None, None)
    record.created = at.timestamp()
    vars(record).update(extra)
    files.handle(record)


def messages(path: Path) -> list[str]:
    text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [json.loads(line)["message"] for line in text.splitlines()]


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


def test_each_line_goes_to_the_files_it_belongs_to(sink: Callable[..., LogFiles], tmp_path: Path) -> None:
    files = sink(tmp_path / "made" / "by it")
    say(files, "plain")
    say(files, "failed", level=logging.ERROR)
    say(files, "sent", payout_id="po_1")
    say(files, "a thread died", level=logging.CRITICAL, uncaught="thread")
    say(files, "nobody asked", level=logging.ERROR, uncaught="asyncio")
    found = {kind: messages(tmp_path / "made" / "by it" / f"usage.{kind}.log") for kind in KINDS if kind != "combined"}
    assert found == {
        "error": ["failed", "a thread died", "nobody asked"],
        "exceptions": ["a thread died"],
        "payouts": ["sent"],
        "rejections": ["nobody asked"],
    }
    everything = messages(tmp_path / "made" / "by it" / "usage.combined.log")
    assert everything == ["plain", "failed", "sent", "a thread died", "nobody asked"]


def test_a_new_day_begins_a_new_file_and_the_old_one_is_compressed(
    sink: Callable[..., LogFiles], tmp_path: Path
) -> None:
    files = sink()
    say(files, "before", datetime(2026, 11, 21, 23, 59, 59, tzinfo=UTC))
    say(files, "after", datetime(2026, 11, 22, tzinfo=UTC))
    # Stamped before midnight, written after: it goes where the newest lines go.
    say(files, "late", datetime(2026, 11, 21, 23, 59, 59, 900_000, tzinfo=UTC))
    aside = tmp_path / "usage.combined.2026-11-21.1.log.gz"
    eventually(aside.exists)
    assert messages(aside) == ["before"]
    assert messages(tmp_path / "usage.combined.log") == ["after", "late"]


def test_a_full_file_is_set_aside_and_no_line_is_cut(sink: Callable[..., LogFiles], tmp_path: Path) -> None:
    files = sink(bytes=1_000)
    for number in range(50):
        say(files, f"{number}")
    files.close()
    aside = [path for path in tmp_path.iterdir() if path.name.startswith("usage.combined.2026")]
    numbered = sorted(aside, key=lambda path: int(path.name.split(".")[3]))
    assert [path.name for path in numbered] == [
        f"usage.combined.2026-11-21.{number}.log.gz" for number in range(1, len(numbered) + 1)
    ]
    assert len(numbered) > 3
    found = [line for path in (*numbered, tmp_path / "usage.combined.log") for line in messages(path)]
    assert found == [str(number) for number in range(50)]
    assert all(len(gzip.decompress(path.read_bytes())) <= 1_000 for path in numbered)


def test_old_files_go_after_their_days_whoever_wrote_them(sink: Callable[..., LogFiles], tmp_path: Path) -> None:
    kept = [
        "billing.error.2026-10-22.1.log.gz",
        "usage.combined.2026-10-22.7.log.gz",
        "notes.2020-01-01.1.log",
        "x.log",
    ]
    gone = ["billing.error.2026-10-21.1.log.gz", "usage.combined.2026-10-21.7.log"]
    for name in (*kept, *gone):
        (tmp_path / name).write_bytes(gzip.compress(b""))
    # 30 days before 21 November is 22 October.
    say(sink(age=30 * DAY), "first line of this process")
    eventually(lambda: not names(tmp_path) & set(gone))
    assert set(kept) <= names(tmp_path)


def test_of_each_kind_only_so_many_files_are_kept(sink: Callable[..., LogFiles], tmp_path: Path) -> None:
    files = sink(files=3)
    for day in range(6):
        say(files, f"day {day}", NOON + day * DAY)
    files.close()
    # Days 0 to 4 (21 to 25 November) were set aside; the last is in the open file.
    assert sorted(name for name in names(tmp_path) if "2026" in name) == [
        "usage.combined.2026-11-23.1.log.gz",
        "usage.combined.2026-11-24.1.log.gz",
        "usage.combined.2026-11-25.1.log.gz",
    ]


def test_what_a_killed_process_left_is_finished_by_the_next(sink: Callable[..., LogFiles], tmp_path: Path) -> None:
    yesterday = (NOON - DAY).timestamp()
    live = tmp_path / "usage.combined.log"
    live.write_text('{"message": "yesterday"}\n')
    os.utime(live, (yesterday, yesterday))
    (tmp_path / "usage.combined.2026-11-20.1.log").write_text('{"message": "not compressed"}\n')
    (tmp_path / "usage.combined.2026-11-20.1.log.gz.part").write_bytes(b"half")
    files = sink()
    say(files, "today")
    files.close()
    assert messages(tmp_path / "usage.combined.2026-11-20.1.log.gz") == ["not compressed"]
    assert messages(tmp_path / "usage.combined.2026-11-20.2.log.gz") == ["yesterday"]
    assert messages(live) == ["today"]
    assert not [name for name in names(tmp_path) if name.endswith(".part")]


def test_a_second_process_of_a_service_has_files_of_its_own_and_frees_them(
    sink: Callable[..., LogFiles], tmp_path: Path
) -> None:
    first, second = sink(), sink()
    say(first, "first")
    say(second, "second")
    assert messages(tmp_path / "usage.combined.log") == ["first"]
    assert messages(tmp_path / "usage.2.combined.log") == ["second"]
    first.close()
    say(sink(), "third")
    assert messages(tmp_path / "usage.combined.log") == ["first", "third"]


def test_processes_share_a_folder_without_mixing_or_losing_lines(tmp_path: Path) -> None:
    # Two of one service, two of others; the last one is killed when it has written its last line.
    wanted = [("usage", "ended"), ("usage", "ended"), ("usage-worker", "ended"), ("gateway", "killed")]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), service, end],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for service, end in wanted
    ]
    # All have their files before any goes on.
    pids = [process.stdout.readline().strip() for process in processes if process.stdout]
    for process in processes:
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        process.communicate(timeout=60)
    assert [process.returncode for process in processes] == [0, 0, 0, -9]
    files = [path for path in tmp_path.iterdir() if ".combined." in path.name and not path.name.endswith(".part")]
    by_writer: dict[str, list[int]] = {pid: [] for pid in pids}
    compressed = {path.name for path in files if path.suffix == ".gz"}
    for path in files:
        # A kill between the last two steps leaves both the file and its compressed form.
        if f"{path.name}.gz" in compressed:
            continue
        writers = set()
        for message in messages(path):
            pid, number = message.split()
            by_writer[pid].append(int(number))
            writers.add(pid)
        assert len(writers) == 1
    assert all(sorted(numbers) == list(range(3_000)) for numbers in by_writer.values())
    assert len(files) > 40  # 12,000 lines of more than 100 bytes in files of 20,000


def test_a_full_disk_fails_nobody_is_told_once_and_leaves_no_half_line(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, timeout=60, check=True
    )
    lost, after = map(int, ended.stdout.split())
    written = messages(tmp_path / "usage.combined.log")
    assert 0 < lost < 100
    assert after == 0
    # All that fitted, the first after the gap, and how many are missing between.
    assert written == [*(f"line {number}" for number in range(100 - lost)), "room again", "log lines are missing"]
    told = json.loads((tmp_path / "usage.combined.log").read_text().splitlines()[-1])
    assert (told["level"], told["lines"]) == ("WARN", lost)
    first, last = ended.stderr.splitlines()
    assert "log lines are lost" in first
    assert f"{lost} log lines are missing" in last


def test_a_folder_that_cannot_be_made_fails_nobody(
    sink: Callable[..., LogFiles], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    files = sink(tmp_path / "file")
    say(files, "lost")
    say(files, "lost too")
    assert files.lost == 2
    assert capsys.readouterr().err.count("log lines are lost") == 1
