"""A child's log file."""

import json
from pathlib import Path

from meterscope.supervisor.log import Log


def _write(log: Log, text: str) -> None:
    with log.open() as file:
        file.write(text.encode())


def test_a_log_goes_on_where_the_last_run_stopped_and_shows_its_own_end_only(tmp_path: Path) -> None:
    file = tmp_path / "usage.log"
    _write(Log(file), "yesterday\n")
    log = Log(file)
    _write(log, "today\n")
    assert log.end() == "today"
    assert file.read_text() == "yesterday\ntoday\n"


def test_a_log_that_has_grown_large_is_set_aside(tmp_path: Path) -> None:
    file = tmp_path / "usage.log"
    file.write_bytes(b"x" * (17 << 20))  # the limit is 16 MiB
    _write(Log(file), "fresh\n")
    assert file.read_text() == "fresh\n"
    assert (tmp_path / "usage.log.1").stat().st_size == 17 << 20


def test_json_lines_are_shown_as_people_read_them_and_the_rest_as_it_is(tmp_path: Path) -> None:
    log = Log(tmp_path / "usage.log")
    failure = {"level": "FATAL", "message": "uncaught", "exception.type": "KeyError", "exception.message": "'rate'"}
    _write(
        log, "Traceback\n" + json.dumps(failure) + "\n[1]\n" + json.dumps({"level": "INFO", "message": "bye"}) + "\n"
    )
    assert log.end().splitlines() == ["Traceback", "FATAL uncaught: KeyError: 'rate'", "[1]", "INFO bye"]


def test_only_the_last_lines_are_shown(tmp_path: Path) -> None:
    log = Log(tmp_path / "usage.log")
    _write(log, "".join(f"line {number}\n" for number in range(1000)))
    assert log.end().splitlines() == [f"line {number}" for number in range(988, 1000)]
