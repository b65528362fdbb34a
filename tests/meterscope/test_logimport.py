"""Importing access logs through the client."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fake_usage import RunningUsage

from meterscope import Outcome, logimport
from meterscope.logimport import Problem, Source

LINE = '{client} - - [17/May/2015:10:05:03 +0000] "GET {path} HTTP/1.1" 200 {size} "-" "-"\n'


def write(path: Path, *lines: str) -> Path:
    path.write_text("".join(lines))
    return path


def test_each_line_is_one_event_of_its_client(start_usage: Callable[..., RunningUsage], tmp_path: Path) -> None:
    usage = start_usage()
    log = write(
        tmp_path / "web.log",
        LINE.format(client="10.0.0.1", path="/a", size=7),
        "broken\n",
        LINE.format(client="10.0.0.2", path="/" + "x" * 999, size="-"),
    )
    report = logimport.run(usage.address, [Source(log, shift=timedelta(days=-1))], source="accesslog")
    assert (report.lines, report.malformed, report.bytes, report.events) == (3, 1, 7, 2)
    assert report.outcomes == {Outcome.ACCEPTED: 2}
    assert report.customers[Outcome.ACCEPTED] == {"10.0.0.1": 1, "10.0.0.2": 1}
    assert report.problems == [Problem("web.log", 2, "neither combined nor common log format: 'broken'")]
    first, second = usage.servicer.calls[0].events
    assert (first.id, first.customer_key, first.quantities["bytes"].value) == ("web.log:1", "10.0.0.1", "7")
    assert first.time.ToDatetime(UTC) == datetime(2015, 5, 16, 10, 5, 3, tzinfo=UTC)
    assert dict(first.attributes) == {"method": "GET", "path": "/a", "status": "200"}
    assert (second.id, second.quantities["bytes"].value) == ("web.log:3", "0")
    assert len(second.attributes["path"]) == 256


def test_lines_that_repeat_count_each_and_a_second_import_counts_none(
    start_usage: Callable[..., RunningUsage], tmp_path: Path
) -> None:
    usage = start_usage()
    logs = [Source(write(tmp_path / "web.log", *[LINE.format(client="10.0.0.1", path="/a", size=1)] * 5))]
    done: list[int] = []
    first = logimport.run(usage.address, logs, source="accesslog", batch=2, on_progress=done.append)
    second = logimport.run(usage.address, logs, source="accesslog")
    assert first.outcomes == {Outcome.ACCEPTED: 5}
    assert second.outcomes == {Outcome.DUPLICATE: 5}
    assert sum(done) == 5


def test_all_lines_can_belong_to_one_customer(start_usage: Callable[..., RunningUsage], tmp_path: Path) -> None:
    usage = start_usage()
    log = write(tmp_path / "web.log", *[LINE.format(client=f"10.0.0.{n}", path="/a", size=1) for n in range(3)])
    logimport.run(usage.address, [Source(log, limit=2)], source="accesslog", customer_key="acme")
    assert [event.customer_key for event in usage.servicer.calls[0].events] == ["acme", "acme"]


def test_two_files_of_the_same_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    logs = [Source(tmp_path / "web.log"), Source(tmp_path / "b" / "web.log.gz")]
    with pytest.raises(ValueError, match=r"two files are named web\.log"):
        logimport.run("127.0.0.1:1", logs, source="accesslog")
