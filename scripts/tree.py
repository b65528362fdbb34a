"""Refuses what must not be in the tree: secrets, download addresses, machine paths, large files.

Reads the files that git tracks. Prints a line for each finding and exits with 1 if there is one.
"""

import re
import subprocess
import sys
from pathlib import Path
from typing import Final

MAX_BYTES: Final = 2 * 1024 * 1024
RULES: Final = (
    ("a private key", re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----")),
    ("a live key", re.compile(r"\b(?:sk|rk)_live_[0-9A-Za-z]{10,}|\bAKIA[0-9A-Z]{16}\b|\bghp_[0-9A-Za-z]{36}\b")),
    (
        "a download address",
        re.compile(
            r"--(?:extra-)?index-url|files\.pythonhosted\.org|pypi\.org/simple|registry\.npmjs\.org|proxy\.golang\.org"
            r"|https?://\S+\.(?:whl|tar\.gz|tgz)\b"
        ),
    ),
    ("a machine's path", re.compile(r"(?<![\w.])/(?:root|home/[a-z]\w*|work)/")),
)
GENERATED: Final = ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py", "_pb2_grpc.pyi")


def findings(path: Path) -> list[str]:
    """Return what is wrong with one file, a line each."""
    if path.stat().st_size > MAX_BYTES:
        return [f"{path}: {path.stat().st_size:,} bytes; the most is {MAX_BYTES:,}"]
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return []
    lines = enumerate(text.splitlines(), 1)
    return [f"{path}:{number}: {name}" for number, line in lines for name, rule in RULES if rule.search(line)]


def main() -> int:
    """Check the whole tree."""
    tracked = subprocess.run(["git", "ls-files", "-z"], check=True, capture_output=True, text=True)  # noqa: S607
    paths = [Path(name) for name in tracked.stdout.split("\0") if name and not name.endswith(GENERATED)]
    found = [
        line
        for path in paths
        if path.is_file() and path != Path(__file__).relative_to(Path.cwd())
        for line in findings(path)
    ]
    print(*found, sep="\n", end="\n" if found else "")  # noqa: T201 - a program's output
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
