"""Supervised children: small real programs that write what happens to them."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from eventually import eventually

from meterscope.supervisor.errors import SupervisorError
from meterscope.supervisor.folder import DataFolder
from meterscope.supervisor.process import Program
from meterscope.supervisor.stack import Stack

# Writes its name when it is up and, told to stop, when it ends.
STEADY = """
import pathlib, signal, sys
name, events = sys.argv[1], pathlib.Path(sys.argv[2])
def tell(what):
    with events.open("a") as file: file.write(f"{name} {what}\\n")
def stop(*_):
    tell("stops"); sys.exit()
signal.signal(signal.SIGTERM, stop)
tell("runs")
while True: signal.pause()
"""
STUBBORN = STEADY.replace("signal.signal(signal.SIGTERM, stop)", "signal.signal(signal.SIGTERM, signal.SIG_IGN)")


class Scene:
    """A data folder, what the children wrote, and what was reported."""

    def __init__(self, folder: DataFolder) -> None:
        self.folder = folder
        self.events = folder.path / "events"
        self.events.touch()
        self.reports: list[str] = []
        self.changes = 0

    def stack(self, *, grace_seconds: float = 5) -> Stack:
        return Stack(self.folder, grace_seconds=grace_seconds, report=self.reports.append, on_change=self._changed)

    def program(self, name: str, *, rank: int = 1, code: str = STEADY) -> Program:
        return Program(
            name=name,
            rank=rank,
            arguments=("-c", code, name, str(self.events)),
            address="",
            environment=os.environ,
            probe=lambda: f"{name} runs" in self.lines(),
        )

    def start(self, stack: Stack, *programs: Program, seconds: float = 10) -> bool:
        stack.add(programs)
        return stack.wait(lambda: not stack.unhealthy, seconds=seconds)

    def lines(self) -> list[str]:
        return self.events.read_text().splitlines()

    def _changed(self) -> None:
        self.changes += 1


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with DataFolder.open(tmp_path / "data") as folder:
        yield Scene(folder)


def test_children_start_together_and_stop_rank_by_rank_the_highest_first(scene: Scene) -> None:
    programs = [scene.program("low", rank=0), scene.program("middle", rank=1), scene.program("high", rank=2)]
    with scene.stack() as stack:
        assert scene.start(stack, *programs)
        pids = stack.pids
        assert set(pids) == {"low", "middle", "high"}
    assert scene.lines()[3:] == ["high stops", "middle stops", "low stops"]
    assert not any(psutil.pid_exists(pid) for pid in pids.values())


def test_a_killed_child_is_started_again(scene: Scene) -> None:
    with scene.stack() as stack:
        scene.start(stack, scene.program("one"), scene.program("other"))
        before = stack.pids

        def kill_and_stop() -> None:
            os.kill(before["one"], signal.SIGKILL)
            try:
                eventually(lambda: scene.lines().count("one runs") == 2, seconds=10)
            finally:
                os.kill(os.getpid(), signal.SIGTERM)

        killer = threading.Thread(target=kill_and_stop)
        killer.start()
        stack.supervise()
        killer.join()
        after = stack.pids
    assert after["one"] != before["one"]
    assert after["other"] == before["other"]
    assert scene.changes == 1
    assert scene.reports[0].startswith("one was killed by SIGKILL and is started again")


def test_a_child_that_does_not_stop_in_time_is_killed(scene: Scene) -> None:
    with scene.stack(grace_seconds=0.2) as stack:
        scene.start(stack, scene.program("stubborn", code=STUBBORN))
        pid = stack.pids["stubborn"]
    assert not psutil.pid_exists(pid)
    assert scene.lines() == ["stubborn runs"]


def test_wrong_settings_end_the_start_at_once_with_the_childs_own_words(scene: Scene) -> None:
    code = "import sys; print('USAGE_THREADS is not a number', file=sys.stderr); sys.exit(78)"
    with scene.stack() as stack:
        scene.start(stack, scene.program("steady"))
        with pytest.raises(SupervisorError, match="ended with exit status 78\nUSAGE_THREADS is not a number"):
            scene.start(stack, scene.program("wrong", code=code))
    assert "steady stops" in scene.lines()


def test_a_child_that_always_dies_ends_the_start_after_a_few_tries(scene: Scene) -> None:
    code = "import json; print(json.dumps({'level': 'ERROR', 'message': 'no luck'})); raise SystemExit(1)"
    with (
        pytest.raises(SupervisorError, match=r"dying cannot start: it ended with exit status 1\n(ERROR no luck\n?){3}"),
        scene.stack() as stack,
    ):
        scene.start(stack, scene.program("dying", code=code), seconds=30)
    assert len(scene.reports) == 1


def test_a_child_that_is_never_healthy_ends_the_start_in_time(scene: Scene) -> None:
    code = "import signal, sys; print('waiting for something', flush=True); signal.pause()"
    with (
        pytest.raises(SupervisorError, match=r"not healthy within 1 s: slow\nwaiting for something"),
        scene.stack() as stack,
    ):
        scene.start(stack, scene.program("slow", code=code), seconds=1)


def test_a_stop_during_the_start_is_obeyed(scene: Scene) -> None:
    code = "import os, signal; os.kill(os.getppid(), signal.SIGTERM); signal.pause()"
    with scene.stack() as stack:
        assert not scene.start(stack, scene.program("never", code=code))


def test_a_child_ends_with_its_supervisor(tmp_path: Path) -> None:
    # The child is the kit's launcher around a module that would run for an hour.
    (tmp_path / "hour.py").write_text("import time; print('runs', flush=True); time.sleep(3600)\n")
    supervisor = (
        "import os, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-m', 'services.kit.supervised', str(os.getpid()), 'hour'],"
        " stdout=subprocess.PIPE, env={**os.environ, 'PYTHONPATH': sys.argv[1]})\n"
        "child.stdout.readline(); print(child.pid, flush=True); time.sleep(3600)\n"
    )
    started = psutil.Popen([sys.executable, "-c", supervisor, str(tmp_path)], stdout=-1, text=True)
    with started:
        child = psutil.Process(int(started.stdout.readline()))
        started.kill()
    assert psutil.wait_procs([child], timeout=10)[1] == []
