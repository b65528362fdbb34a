"""What the demo knows by itself: the traffic in its logs, and what the plan makes of it."""

import gzip
import json
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from meterscope import accesslog
from meterscope.demo import pricing, state, traffic
from meterscope.demo.errors import DemoFailed
from meterscope.demo.state import State

EXAMPLES = Path(__file__).parents[2] / "examples"
LOGS = EXAMPLES / "access-logs"


@pytest.fixture(scope="module")
def plan() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((EXAMPLES / "plans" / "web-inr.json").read_text())
    return content


def test_the_demo_counts_what_the_import_reads() -> None:
    logs, counted = traffic.count(LOGS, None)
    requests, sizes = Counter[str](), Counter[str]()
    for log in logs:
        for line in accesslog.read(log.path):
            assert line.request
            requests[line.request.client] += 1
            sizes[line.request.client] += line.request.size
    assert (counted.requests, counted.bytes) == (requests, sizes)
    assert counted.requests.total() == 11_906
    assert counted.bytes.total() == 3_480_555_124


def test_exactly_one_of_the_demos_customers_crosses_the_plans_limit(plan: dict[str, Any]) -> None:
    _, counted = traffic.count(LOGS, None)
    busiest = counted.busiest
    assert [counted.requests[client] for client in busiest[:3]] == [482, 364, 357]
    # The 20th and the 21st made 50 requests each: the address decides.
    assert busiest[19:21] == ["14.160.65.22", "86.76.247.183"]
    (limit,) = plan["limits"]
    assert [client for client in busiest if counted.requests[client] >= int(limit["limit"])] == busiest[:1]


def test_a_cut_input_is_the_beginning_of_each_log() -> None:
    logs, counted = traffic.count(LOGS, 100)
    assert [log.lines for log in logs] == [100, 100, 100]
    assert counted.requests.total() == 300


def test_a_folder_without_logs_is_named(tmp_path: Path) -> None:
    with pytest.raises(DemoFailed, match=str(tmp_path)):
        traffic.count(tmp_path, None)


def test_a_broken_log_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "a.log.gz").write_bytes(gzip.compress(b"broken\n"))
    with pytest.raises(DemoFailed, match=r"a\.log\.gz:1 is no access log line"):
        traffic.count(tmp_path, None)


@pytest.mark.parametrize(
    ("requests", "sent", "amounts"),
    [
        (0, 0, ["499.00", "0.00", "0.00"]),
        (100, 0, ["499.00", "0.00", "0.00"]),
        # One request above the included ones: 40 ÷ 1,000 = 0.04.
        (101, 0, ["499.00", "0.04", "0.00"]),
        # 100 * 0.04 + 200 * 0.03 = 10.00
        (400, 0, ["499.00", "10.00", "0.00"]),
        # 10.00 + 82 * 0.02 = 11.64; 75,500,527 * 8.50 ÷ 10⁹ = 0.6417…
        (482, 75_500_527, ["499.00", "11.64", "0.64"]),
        # 10⁹ ÷ 850 bytes cost 0.01, half of that is rounded up: 588,236 * 8.50 ÷ 10⁹ = 0.005000006
        (0, 588_236, ["499.00", "0.00", "0.01"]),
    ],
)
def test_the_plan_prices_usage(plan: dict[str, Any], requests: int, sent: int, amounts: list[str]) -> None:
    usage = {"requests": requests, "bytes": sent}
    assert pricing.amounts(plan, usage) == [Decimal(amount) for amount in amounts]


def make_state() -> State:
    return State(
        zone="Asia/Kolkata",
        month="2026-10",
        shift_days={"a.log.gz": 5},
        limit_lines=None,
        customers=["10.0.0.1"],
        latecomers=["10.0.0.2"],
        declined="10.0.0.1",
        request_limit="400",
    )


def test_choices_survive_for_the_next_run(tmp_path: Path) -> None:
    chosen = make_state()
    chosen.save(tmp_path)
    assert state.load(tmp_path) == chosen
    assert (tmp_path / "demo.json").stat().st_mode & 0o777 == 0o600
    assert state.load(tmp_path / "elsewhere") is None


def test_choices_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "demo.json").write_text('{"zone": "UTC"}')
    with pytest.raises(DemoFailed, match=r"demo\.json cannot be read .* choose another --data-dir"):
        state.load(tmp_path)
