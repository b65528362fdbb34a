"""The programs in examples/ do what they say."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from fake_usage import RunningUsage

PROGRAM = Path(__file__).parents[2] / "examples" / "client" / "track_usage.py"


def test_a_program_meters_itself(start_usage: Callable[..., RunningUsage]) -> None:
    usage = start_usage()
    done = subprocess.run(
        [sys.executable, PROGRAM, usage.address], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stderr.count("ACCEPTED") == 3
    assert sorted(event.quantities["pages"].value for event in usage.servicer.stored.values()) == ["1", "12", "3"]
