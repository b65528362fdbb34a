"""`meterscope import accesslog`, typed as a user would."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from fake_usage import RunningUsage

from meterscope.cli import main

GOOD = '10.0.0.1 - - [17/May/2015:10:05:03 +0000] "GET /a HTTP/1.1" 200 7 "-" "-"\n'


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "web.log"
    path.write_text(GOOD + "broken\n" + GOOD)
    return path


def test_broken_lines_are_reported_and_the_rest_goes_in(start_usage: Callable[..., RunningUsage], log: Path) -> None:
    usage = start_usage()
    result = CliRunner().invoke(main, ["import", "accesslog", str(log), "--usage", usage.address])
    assert result.exit_code == 3
    assert "web.log:2: neither combined nor common log format: 'broken'" in result.stdout
    assert {meter.id for meter in usage.servicer.meters} == {"requests", "bytes"}
    assert len(usage.servicer.stored) == 2


def test_programs_get_json(start_usage: Callable[..., RunningUsage], log: Path) -> None:
    usage = start_usage()
    result = CliRunner().invoke(main, ["import", "accesslog", str(log), "--usage", usage.address, "--json"])
    report = json.loads(result.stdout)
    assert (report["lines"], report["malformed"], report["accepted"], report["bytes"]) == (3, 1, 2, "14")
    assert report["problems"][0]["line"] == 2


def test_a_clean_import_exits_with_0_also_the_second_time(
    start_usage: Callable[..., RunningUsage], tmp_path: Path
) -> None:
    usage = start_usage()
    log = tmp_path / "web.log"
    log.write_text(GOOD)
    command = ["import", "accesslog", str(log), "--usage", usage.address, "--json", "--shift-days", "3"]
    first, second = (CliRunner().invoke(main, command) for _ in range(2))
    assert (first.exit_code, second.exit_code) == (0, 0)
    assert json.loads(second.stdout)["duplicate"] == 1


def test_nothing_running_is_said_with_what_to_do(tmp_path: Path, log: Path) -> None:
    result = CliRunner().invoke(main, ["import", "accesslog", str(log), "--data-dir", str(tmp_path)])
    assert result.exit_code == 1
    assert f"nothing runs on {tmp_path}: start `meterscope up`, or name --usage" in result.stderr
