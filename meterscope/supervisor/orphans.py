"""What an earlier `up` on the same folder left behind: children whose supervisor was killed."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Final

import psutil

# Set for children only, so that nobody else's process is ever taken for one.
MARK: Final = "METERSCOPE_UP_FOLDER"


def stop_orphans(folder: Path, *, grace_seconds: float, report: Callable[[str], None]) -> None:
    """Stop them in order, then by force. Call it with the folder locked: then no other `up` has children on it.

    Args:
        folder: the data folder, absolute.
        grace_seconds: what they get to stop in order.
        report: told what is stopped.
    """
    orphans = [process for process in psutil.process_iter(["name", "environ", "cwd"]) if _is_ours(process, folder)]
    if not orphans:
        return
    report(f"stopping {len(orphans)} processes that an earlier run left behind")
    for orphan in orphans:
        # PostgreSQL takes SIGTERM for "when the last client has gone".
        _signal(orphan, signal.SIGINT if orphan.info["name"] == "postgres" else signal.SIGTERM)
    stubborn = psutil.wait_procs(orphans, timeout=grace_seconds)[1]
    for orphan in stubborn:
        _signal(orphan, signal.SIGKILL)
    psutil.wait_procs(stubborn, timeout=grace_seconds)


def _is_ours(process: psutil.Process, folder: Path) -> bool:
    environment = process.info["environ"] or {}
    # A backend of PostgreSQL has overwritten its environment with its title; it works in the server's folder.
    return environment.get(MARK) == str(folder) or process.info["cwd"] == str(folder / "postgres")


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return
