"""A server process keeps to one core, and out of the way of others that do."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress

import psutil
import pytest

from services.kit.affinity import better
from tests.eventually import eventually
from tests.ports import free_ports

CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
several_cores = pytest.mark.skipif(len(CORES) < 2, reason="nothing to choose between on one core")
# A server of the kit's own: no database, one service that nobody calls.
PROGRAM = """
import os, sys, threading
from services.kit import telemetry
from services.kit.config import KitSettings
from services.kit.server import Server
from services.kit.settings import read
settings = read(KitSettings, os.environ)
telemetry.setup("affine", settings, role="server")
def spin():
    while True: pass
if sys.argv[2] == "busy":
    threading.Thread(target=spin, daemon=True).start()
Server(f"127.0.0.1:{sys.argv[1]}", lambda server: None, service_names=[], settings=settings).serve_until_signal()
"""
SPIN = "import os; os.sched_setaffinity(0, {%d})\nwhile True: pass"


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    running: list[subprocess.Popen[bytes]] = []

    def run(*arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        running.append(subprocess.Popen([sys.executable, "-c", *arguments], env={**os.environ, **environment}))
        return running[-1]

    yield run
    for process in running:
        process.kill()
        process.wait()


def cores_of_threads(pid: int) -> set[frozenset[int]]:
    found = set()
    for thread in psutil.Process(pid).threads():
        with suppress(ProcessLookupError):
            found.add(frozenset(os.sched_getaffinity(thread.id)))
    return found


def core_of(process: subprocess.Popen[bytes]) -> int:
    """Wait until all of its threads are on one core, and return that."""
    eventually(lambda: len(cores := cores_of_threads(process.pid)) == 1 and len(next(iter(cores))) == 1)
    ((core,),) = cores_of_threads(process.pid)
    return core


@several_cores
def test_a_server_keeps_all_its_threads_on_one_core(start: Callable[..., subprocess.Popen[bytes]]) -> None:
    server = start(PROGRAM, str(free_ports()), "idle")
    assert core_of(server) in CORES
    for thread in psutil.Process(server.pid).threads():
        with suppress(ProcessLookupError):
            assert os.sched_getscheduler(thread.id) == os.SCHED_BATCH
    # Those of grpcio, the watcher, and the one that looks whether another core is better.
    assert len(psutil.Process(server.pid).threads()) > 3


@several_cores
def test_a_second_server_takes_another_core(start: Callable[..., subprocess.Popen[bytes]]) -> None:
    # Others may be kept on cores of this machine: one more is put on each core but one.
    first = core_of(start(PROGRAM, str(free_ports()), "idle"))
    kept = dict.fromkeys(CORES, 0)
    for process in psutil.process_iter():
        with suppress(OSError, psutil.Error):
            if len(cores := os.sched_getaffinity(process.pid)) == 1 and process.cmdline():
                kept[next(iter(cores))] += 1
    second = core_of(start(PROGRAM, str(free_ports()), "idle"))
    assert kept[second] == min(kept.values())
    assert first != second or kept[first] == min(kept.values())


@several_cores
def test_a_busy_server_leaves_a_core_to_another_that_cannot(start: Callable[..., subprocess.Popen[bytes]]) -> None:
    server = start(PROGRAM, str(free_ports()), "busy")
    first = core_of(server)
    start(SPIN % first)
    eventually(lambda: frozenset({first}) not in cores_of_threads(server.pid))
    assert core_of(server) != first


@several_cores
def test_any_core_leaves_it_to_the_system(start: Callable[..., subprocess.Popen[bytes]]) -> None:
    port = free_ports()
    server = start(PROGRAM, str(port), "idle", METERSCOPE_CPU_AFFINITY="any")
    eventually(lambda: any(each.laddr.port == port for each in psutil.Process(server.pid).net_connections()))
    assert cores_of_threads(server.pid) == {frozenset(CORES)}


@pytest.mark.parametrize(
    ("cores", "shares", "expected"),
    [
        # Alone.
        ({1: 0}, {1: 0.9}, None),
        # Beside one that works: away from it.
        ({1: 0, 2: 0}, {1: 0.5, 2: 0.5}, 1),
        # Beside one that does nothing.
        ({1: 0, 2: 0}, {1: 0.9, 2: 0.01}, None),
        # The other core's is at work as much.
        ({1: 0, 2: 0, 3: 1}, {1: 0.5, 2: 0.5, 3: 0.5}, None),
        # The other core's is at work less.
        ({1: 0, 2: 0, 3: 1}, {1: 0.5, 2: 0.5, 3: 0.3}, 1),
        # It does nothing itself.
        ({1: 0, 2: 0}, {1: 0.1, 2: 0.9}, None),
        # New, or not kept on a core.
        ({1: 0, 2: 0}, {}, None),
        ({2: 0}, {1: 0.9, 2: 0.9}, None),
        # On a core that it may not choose.
        ({1: 0, 2: 5}, {1: 0.9, 2: 0.9}, None),
    ],
)
def test_where_a_process_had_better_be(cores: dict[int, int], shares: dict[int, float], expected: int | None) -> None:
    assert better(1, cores, shares, [0, 1]) == expected
